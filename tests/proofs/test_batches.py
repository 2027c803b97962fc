"""Every example once an epoch, with its label, in an order that seed and epoch decide, however they are shared out."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinymnist import batches
from tinymnist.backend import mx
from tinymnist.batches import Batches, permutation, statistics


def split(n):
    """n images of 2 x 3, each with its own number in base 256, and labels that tell the number too"""
    number = np.arange(n)
    images = np.stack([number // 256, number % 256, 7 * number % 256, 0 * number, 0 * number + 255, number % 10], 1)
    return images.reshape(n, 2, 3).astype("uint8"), (number % 10).astype("uint8")


def numbers(found):
    """Which examples batches hold, in their order; every label must be that of its image."""
    for images, labels in found:
        x, y = images.asnumpy(), labels.asnumpy()
        assert images.shape == (len(y), 1, 2, 3)
        assert (x.dtype, y.dtype) == ("uint8", "uint8")
        assert (x[:, 0, 1, 2] == y).all()
        which = x[:, 0, 0, 0].astype(int) * 256 + x[:, 0, 0, 1]
        np.testing.assert_array_equal(x[:, 0], split(1000)[0][which])
        yield which.tolist()


@pytest.fixture(params=["on the device", "on the host", "on disk"])
def make(request, tmp_path, monkeypatch, device):
    """Batches of split(n), in each of the three places where the examples may be"""

    def batches_of(n, size, **how):
        images, labels = split(n)
        if request.param == "on disk":
            monkeypatch.setattr(batches, "WHOLE", images.nbytes - 1)
            images.tofile(tmp_path / "images")
            images = np.memmap(tmp_path / "images", np.uint8, "r", shape=images.shape)
        if request.param == "on the host":
            how["alter"] = lambda images, rng: images
        made = Batches((images, labels), size, device, **how)
        assert made.resident == (request.param == "on the device")
        return made

    return batches_of


def test_the_order_of_an_epoch_stays_what_it_was():
    """so that a run which another version began goes on in its order"""
    assert permutation(3, 1, 8).tolist() == [2, 1, 4, 0, 5, 7, 6, 3]


@pytest.mark.parametrize("n, size", [(1, 1), (10, 1), (10, 3), (10, 5), (10, 10), (10, 99), (600, 64), (200, 1)])
def test_an_epoch_is_the_order_given_cut_into_batches(make, n, size):
    order, made = permutation(1, 2, n), make(n, size)
    found = list(numbers(made.epoch(order)))
    assert list(itertools.chain(*found)) == order.tolist()
    assert [len(batch) for batch in found] == [size] * (n // size) + [n % size] * (n % size > 0)
    assert len(made) == len(found)


@pytest.mark.parametrize("n, size", [(1, 1), (10, 3), (10, 5), (600, 64)])
def test_without_an_order_they_come_as_they_are(make, n, size):
    assert list(itertools.chain(*numbers(make(n, size)))) == list(range(n))


@pytest.mark.parametrize("start", [0, 1, 3, 4, 5])
def test_an_epoch_goes_on_where_it_is_told(make, start):
    order, made = permutation(1, 2, 14), make(14, 3)
    whole = list(numbers(made.epoch(order)))
    assert list(numbers(made.epoch(order, start))) == whole[start:]


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("n, size, shares", [(12, 4, 2), (12, 6, 3), (13, 4, 2), (13, 5, 3), (9, 8, 4), (7, 3, 3)])
def test_shares_divide_every_batch_between_them(make, n, size, shares, start):
    order = permutation(0, 0, n)
    whole = list(numbers(make(n, size).epoch(order, start)))
    parts = [make(n, size, share=share, shares=shares).epoch(order, start) for share in range(shares)]
    for batch, *of_each in itertools.zip_longest(whole, *parts):
        found = [next(numbers([part])) if part else [] for part in of_each]
        assert list(itertools.chain(*found)) == batch
        assert max(map(len, found)) - min(map(len, found)) <= 1


def test_a_share_without_examples_is_none(make):
    assert list(make(5, 4, share=0, shares=2).epoch(np.arange(5)))[1] is None
    assert list(make(5, 4, share=0, shares=2))[1] is None
    assert list(make(1, 4, share=0, shares=2).epoch(np.arange(1))) == [None]
    assert next(numbers(list(make(5, 4, share=1, shares=2).epoch(np.arange(5)))[1:])) == [4]


@given(st.integers(1, 300), st.integers(1, 320), st.integers(1, 5), st.integers(0, 5), st.integers(0, 5))
def test_every_example_once_however_shared(n, size, shares, seed, epoch):
    order = permutation(seed, epoch, n)
    found = [
        number
        for share in range(shares)
        for batch in Batches(split(n), size, mx.cpu(), share=share, shares=shares).epoch(order)
        for number in (next(numbers([batch])) if batch else [])
    ]
    assert sorted(found) == list(range(n))


def test_the_seed_and_the_epoch_decide_the_order():
    orders = {(seed, epoch): permutation(seed, epoch, 50).tolist() for seed in range(3) for epoch in range(3)}
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 9
    assert permutation(2, 1, 50).tolist() == orders[2, 1]


def test_what_alters_has_the_batch_and_its_own_random_numbers(device):
    def alter(images, rng):
        calls.append((images[:, 0, 1].tolist(), rng.integers(1 << 30)))
        return 255 - images

    calls, order = [], permutation(0, 0, 10)
    made = Batches(split(10), 4, device, share=1, shares=2, alter=alter)
    given = [images.asnumpy() for images, _ in made.epoch(order, 1, seed=(5, 3))]
    drawn = [np.random.default_rng((5, 3, number, 1)).integers(1 << 30) for number in (1, 2)]
    assert calls == [(order[6:8].tolist(), drawn[0]), (order[9:].tolist(), drawn[1])]
    np.testing.assert_array_equal(given[0][:, 0], 255 - split(10)[0][order[6:8]])
    next(iter(made))
    assert calls[-1] == ([2, 3], np.random.default_rng((0, 1)).integers(1 << 30))


def test_they_lie_on_the_device(device):
    for images, labels in Batches(split(5), 2, device).epoch(permutation(0, 0, 5)):
        assert images.context == labels.context == device


@pytest.mark.parametrize("extra, resident", [(0, True), (1, False)])
def test_a_small_mapped_file_is_brought_to_the_device(extra, resident, tmp_path, monkeypatch):
    images, labels = split(10)
    images.tofile(tmp_path / "images")
    mapped = np.memmap(tmp_path / "images", np.uint8, "r", shape=images.shape)
    monkeypatch.setattr(batches, "WHOLE", images.nbytes - extra)
    assert Batches((mapped, labels), 2, mx.cpu()).resident == resident
    assert Batches((images, labels), 2, mx.cpu()).resident


@pytest.mark.parametrize("n, resident", [(256, True), (257, False)])
def test_small_is_up_to_256_mib(n, resident, tmp_path):
    with open(tmp_path / "images", "wb") as sparse:
        sparse.truncate(n << 20)
    mapped = np.memmap(tmp_path / "images", np.uint8, "r", shape=(n, 1024, 1024))
    assert Batches((mapped, np.zeros(n, np.uint8)), 1, mx.cpu()).resident == resident


def test_examples_are_told_apart_where_float32_would_not(device):
    n = (1 << 24) + 2
    made = Batches((np.arange(n).astype("uint8").reshape(n, 1, 1), np.zeros(n, np.uint8)), n, device)
    images, _ = next(made.epoch(np.array([n - 1, n - 2, n - 3])))
    assert images.asnumpy().ravel().tolist() == [1, 0, 255]


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_has_an_example(size):
    with pytest.raises(ValueError, match=f"at least 1 example, not {size}"):
        Batches(split(5), size, mx.cpu())


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 3, 5), (1000, 28, 28)])
@pytest.mark.parametrize("part", [1, 100, 10**6])
def test_statistics_are_those_of_all_pixels(shape, part, monkeypatch):
    monkeypatch.setattr(batches, "PART", part)
    images = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
    images[-1] = 255
    mean, std = statistics(images)
    assert mean == pytest.approx((images / 255).mean(), rel=1e-12)
    assert std == pytest.approx((images / 255).std(), rel=1e-12)
    assert type(mean) is type(std) is float
