"""An epoch has every example once, with its label, in an order that depends on seed and epoch alone."""

import numpy as np
import pytest

from tinymnist.backend import mx
from tinymnist.batches import Batches, permutation


def make_split(n):
    """n different images of 2 x 3, and labels"""
    images = np.random.default_rng(0).integers(0, 256, (n, 2, 3))
    return images.astype("uint8"), (np.arange(n) % 10).astype("uint8")


def test_the_order_of_an_epoch_never_changes():
    """A run that an earlier version began must continue in its order."""
    assert permutation(3, 1, 8).tolist() == [2, 1, 4, 0, 5, 7, 6, 3]


def test_the_seed_and_the_epoch_decide_the_order():
    orders = {(seed, epoch): permutation(seed, epoch, 50).tolist() for seed in range(3) for epoch in range(3)}
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 9
    assert permutation(2, 1, 50).tolist() == orders[2, 1]


@pytest.mark.parametrize("n, size", [(1, 1), (10, 3), (10, 5), (10, 10), (10, 99), (600, 64), (200, 1)])
def test_an_epoch_is_the_given_order_cut_into_batches(n, size, device):
    order, split, sizes = permutation(1, 2, n), make_split(n), []
    for images, labels in Batches(split, size, device).epoch(order):
        numbers = order[sum(sizes) :][: len(labels)]
        for batch, expected in ((images, split[0][numbers, None]), (labels, split[1][numbers])):
            assert (batch.context, batch.dtype) == (device, np.uint8)
            np.testing.assert_array_equal(batch.asnumpy(), expected)
        sizes.append(len(labels))
    assert sizes == [size] * (n // size) + [n % size] * (n % size > 0)


@pytest.mark.parametrize("writable", [True, False])
def test_batches_keep_what_they_were_given(writable, device):
    """A later change of the caller's array does not reach them. An array that nobody can change needs no copy."""
    images, labels = make_split(10)
    expected = images.copy()
    images.flags.writeable = labels.flags.writeable = writable
    batches = Batches((images, labels), 4, device)
    if writable:
        images[:] = labels[:] = 0
    found, numbers = batches.take(np.arange(10))
    assert found.context == numbers.context == device
    np.testing.assert_array_equal(found.asnumpy()[:, 0], expected)
    np.testing.assert_array_equal(numbers.asnumpy(), np.arange(10))
    assert images.flags.writeable == writable


def test_read_only_images_in_another_order_of_memory_are_taken_as_they_are(device):
    images, labels = make_split(10)
    for array in (images[:, ::-1], images[::2], np.asfortranarray(images)):
        array.flags.writeable = False
        found, _ = Batches((array, labels[: len(array)]), 4, device).take(np.arange(len(array)))
        np.testing.assert_array_equal(found.asnumpy()[:, 0], array)


def test_row_numbers_beyond_float32_are_exact(device):
    n = (1 << 24) + 2
    batches = Batches((np.arange(n).astype("uint8").reshape(n, 1, 1), np.zeros(n, np.uint8)), n, device)
    images, _ = batches.take(np.array([n - 1, n - 2, n - 3]))
    assert images.asnumpy().ravel().tolist() == [1, 0, 255]


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_without_examples_is_refused(size):
    with pytest.raises(ValueError, match=f"at least 1 example, not {size}"):
        Batches(make_split(5), size, mx.cpu())
