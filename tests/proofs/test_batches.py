"""An epoch has every example once, with its label, in an order that depends on seed and epoch alone."""

import itertools

import numpy as np
import pytest

from tinymnist.backend import mx
from tinymnist.batches import Batches, permutation


def make_split(n):
    """n images of 2 x 3 that tell their number in base 256, and labels that tell it too"""
    number = np.arange(n)
    images = np.stack([number // 256, number % 256, 7 * number % 256, 0 * number, 0 * number + 255, number % 10], 1)
    return images.reshape(n, 2, 3).astype("uint8"), (number % 10).astype("uint8")


def read_numbers(batches):
    """Which examples each batch holds, in their order. Every label must be that of its image."""
    for images, labels in batches:
        x, y = images.asnumpy(), labels.asnumpy()
        assert images.shape == (len(y), 1, 2, 3)
        assert (x.dtype, y.dtype) == ("uint8", "uint8")
        assert (x[:, 0, 1, 2] == y).all()
        rows = x[:, 0, 0, 0].astype(int) * 256 + x[:, 0, 0, 1]
        np.testing.assert_array_equal(x[:, 0], make_split(1000)[0][rows])
        yield rows.tolist()


def test_the_order_of_an_epoch_never_changes():
    """A run that an earlier version began must continue in its order."""
    assert permutation(3, 1, 8).tolist() == [2, 1, 4, 0, 5, 7, 6, 3]


def test_the_seed_and_the_epoch_decide_the_order():
    orders = {(seed, epoch): permutation(seed, epoch, 50).tolist() for seed in range(3) for epoch in range(3)}
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 9
    assert permutation(2, 1, 50).tolist() == orders[2, 1]


@pytest.mark.parametrize("n, size", [(1, 1), (10, 1), (10, 3), (10, 5), (10, 10), (10, 99), (600, 64), (200, 1)])
def test_an_epoch_is_the_given_order_cut_into_batches(n, size, device):
    order, batches = permutation(1, 2, n), Batches(make_split(n), size, device)
    found = list(read_numbers(batches.epoch(order)))
    assert list(itertools.chain(*found)) == order.tolist()
    assert [len(batch) for batch in found] == [size] * (n // size) + [n % size] * (n % size > 0)


def test_batches_are_on_the_device(device):
    for images, labels in Batches(make_split(5), 2, device).epoch(permutation(0, 0, 5)):
        assert images.context == labels.context == device


def test_row_numbers_beyond_float32_are_exact(device):
    n = (1 << 24) + 2
    batches = Batches((np.arange(n).astype("uint8").reshape(n, 1, 1), np.zeros(n, np.uint8)), n, device)
    images, _ = next(batches.epoch(np.array([n - 1, n - 2, n - 3])))
    assert images.asnumpy().ravel().tolist() == [1, 0, 255]


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_without_examples_is_refused(size):
    with pytest.raises(ValueError, match=f"at least 1 example, not {size}"):
        Batches(make_split(5), size, mx.cpu())
