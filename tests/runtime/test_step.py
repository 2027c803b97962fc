"""The devices and workers of a run divide every batch between them: each example once, none twice."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinymnist.backend import mx
from tinymnist.batches import Batches, permutation
from tinymnist.datasets.mapped import HostBatches
from tinymnist.runtime.step import TAKEN, share_batches


def make_batches(kind, n, size):
    number = np.arange(n, dtype=np.uint8)
    return kind((number.reshape(n, 1, 1), number), size, mx.cpu())


def read_labels(batches):
    """The labels of each batch; [] where the share has none"""
    found = []
    for batch in batches:
        assert batch is None or batch[0].asnumpy().ravel().tolist() == batch[1].asnumpy().tolist() != []
        found.append(batch[1].asnumpy().tolist() if batch else [])
    return found


@pytest.mark.parametrize("kind", [Batches, HostBatches])
@pytest.mark.parametrize("start", [0, 1, 3])
@pytest.mark.parametrize("n, size", [(12, 4), (13, 4), (9, 8), (7, 3), (5, 2), (1, 3), (9, 100), (3 * TAKEN, 1)])
@pytest.mark.parametrize("shares", [1, 2, 3, 7])
def test_shares_divide_every_batch(kind, n, size, shares, start):
    order, batches = permutation(0, 0, n), make_batches(kind, n, size)
    parts = [read_labels(share_batches(batches, order, (i, shares), start=start)) for i in range(shares)]
    whole = [list(itertools.chain(*batch)) for batch in zip(*parts)]
    assert whole == [order[begin : begin + size].tolist() for begin in range(start * size, n, size)]
    for batch in zip(*parts):
        assert max(map(len, batch)) - min(map(len, batch)) <= 1


@given(st.integers(1, 200), st.integers(1, 220), st.integers(1, 5), st.integers(0, 5), st.integers(0, 5))
def test_any_epoch_has_every_example_once(n, size, shares, seed, epoch):
    batches, order = make_batches(Batches, n, size), permutation(seed, epoch, n)
    parts = [read_labels(share_batches(batches, order, (i, shares))) for i in range(shares)]
    assert sorted(label for part in parts for batch in part for label in batch) == list(range(n))


def test_altered_batches_draw_from_the_seed_the_batch_and_the_share():
    def alter(images, rng):
        calls.append((images.ravel().tolist(), rng.integers(1 << 30)))
        return 255 - images

    calls, order, number = [], permutation(0, 0, 10), np.arange(10, dtype=np.uint8)
    batches = HostBatches((number.reshape(10, 1, 1), number), 4, mx.cpu(), alter)
    altered = [images.asnumpy().ravel() for images, _ in share_batches(batches, order, (1, 2), start=1, seed=(5, 3))]
    draws = [np.random.default_rng((5, 3, batch, 1)).integers(1 << 30) for batch in (1, 2)]
    assert calls == [(order[6:8].tolist(), draws[0]), (order[9:].tolist(), draws[1])]
    np.testing.assert_array_equal(altered[0], 255 - order[6:8])
