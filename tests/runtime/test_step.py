"""The devices and workers of a run divide every batch between them: each example once, none twice."""

import itertools

import numpy as np
import pytest

from tinymnist.backend import mx
from tinymnist.batches import Batches, Split, permutation
from tinymnist.datasets.mapped import HostBatches, make_batches
from tinymnist.runtime.step import TAKEN, share_batches


def make_split(n):
    """Images of one pixel, which is the number of the example, as its label is"""
    number = np.arange(n, dtype=np.uint8)
    return Split(number.reshape(n, 1, 1), number)


def read_labels(batches):
    """The labels of each batch; [] where the share has none"""
    found = []
    for batch in batches:
        assert batch is None or batch[0].asnumpy().ravel().tolist() == batch[1].asnumpy().tolist() != []
        found.append(batch[1].asnumpy().tolist() if batch else [])
    return found


@pytest.mark.parametrize("kind", [Batches, HostBatches])
@pytest.mark.parametrize("start", [0, 1, 3])
@pytest.mark.parametrize("n, size", [(12, 4), (13, 4), (9, 8), (5, 2), (1, 3), (9, 100), (2 * TAKEN, 1), (200, 3)])
@pytest.mark.parametrize("shares", [1, 2, 3, 7])
def test_shares_divide_every_batch(kind, n, size, shares, start):
    order, batches = permutation(0, 0, n), kind(make_split(n), size, mx.cpu())
    parts = [read_labels(share_batches(batches, order, (i, shares), start=start)) for i in range(shares)]
    whole = [list(itertools.chain(*batch)) for batch in zip(*parts)]
    assert whole == [order[begin : begin + size].tolist() for begin in range(start * size, n, size)]
    for batch in zip(*parts):
        assert max(map(len, batch)) - min(map(len, batch)) <= 1


def test_altered_batches_draw_from_the_seed_the_batch_and_the_share():
    def alter(images, rng):
        return images + rng.integers(100, dtype=np.uint8)

    def draw(*seed):
        return np.random.default_rng(seed).integers(100, dtype=np.uint8)

    order, batches = permutation(0, 0, 10), make_batches(make_split(10), 4, mx.cpu(), alter)
    shares = share_batches(batches, order, (1, 2), start=1, seed=(5, 3))
    for batch, part in ((1, order[6:8]), (2, order[9:])):
        images, labels = next(shares)
        assert images.asnumpy().ravel().tolist() == (part + draw(5, 3, batch, 1)).tolist()
        assert labels.asnumpy().tolist() == part.tolist()
    images, _ = next(batches.epoch(order))
    assert images.asnumpy().ravel().tolist() == (order[:4] + draw(0)).tolist()  # without a seed, always the same
