"""The devices of all workers together use every example of every batch once, and weigh all examples alike."""

from itertools import product

import numpy as np
import pytest
from runs import digits, make_run

import tinymnist as tm
from tinymnist.backend import mx
from tinymnist.batches import Batches, Split
from tinymnist.datasets.mapped import HostBatches
from tinymnist.runtime.devices import Exchange
from tinymnist.runtime.metrics import sum_results
from tinymnist.runtime.step import share_batches


@pytest.mark.parametrize("kind", [Batches, HostBatches])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_devices_and_workers_divide_batches_of_every_size(devices, workers, kind):
    """Up to nine shares of batches of one to ten examples, so that some shares have none"""
    shares = []
    for rank in range(workers):
        exchange = Exchange([mx.cpu(i) for i in range(devices)])
        exchange.rank, exchange.workers = rank, workers
        shares += exchange.shares()
    assert shares == [(number, devices * workers) for number in range(devices * workers)]
    for n, size in product(range(1, 11), repeat=2):
        split, order = Split(np.zeros((n, 1, 1), np.uint8), np.arange(n, dtype=np.uint8)), np.arange(n)[::-1]
        parts = [share_batches(kind(split, size, mx.cpu()), order, share) for share in shares]
        batches = [[part for part in batch if part is not None] for batch in zip(*parts)]
        assert all(len(labels) for batch in batches for _, labels in batch)  # None instead of an empty part
        found = [[label for _, labels in batch for label in labels.asnumpy()] for batch in batches]
        assert found == [order[begin : begin + size].tolist() for begin in range(0, n, size)]


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("devices", [1, 2, 3, 5])
def test_every_example_has_the_same_weight_in_a_step(devices, compile):
    """With weights 0, the gradient of the bias of class k is 1 / K − the share of the examples that have this label.

    Every example has its own label.
    """

    def on_batch(run, examples):
        gradient = run.model.parameters["0.bias"].grad.asnumpy()
        batch = order[sum(sizes) :][: settings["batch_size"]]
        expected = np.full(12, 1 / 12)
        expected[batch] -= 1 / len(batch)
        np.testing.assert_allclose(gradient, expected, rtol=1e-12)
        sizes.append(examples)

    split = Split(np.zeros((11, 1, 1), np.uint8), np.arange(11, dtype=np.uint8))
    for size in range(1, 13):
        order, sizes = np.random.default_rng((3, 0)).permutation(11), []
        settings = {"epochs": 1, "batch_size": size, "seed": 3, "compile": compile}
        settings["device"] = ",".join(f"cpu:{i}" for i in range(devices))
        model = tm.softmax_regression(classes=12, image=(1, 1, 1)).allocate(dtype="float64")
        tm.fit(
            model, tm.Optimizer("sgd", lr=1e-37), tm.Data(split, split, "own", "labels"), on_batch=on_batch, **settings
        )
        assert sum(sizes) == 11 and max(sizes) == min(size, 11)


def test_devices_without_an_example_add_nothing_to_the_results():
    np.testing.assert_array_equal(sum_results([[None], [None, None]]), np.zeros((2, 3)))


def test_without_compiling_nothing_is_replayed():
    (step,) = make_run(digits(20, 10), compile=False, epochs=1).train().steps
    assert step.forward == step.run_model and step.replay_update is None
