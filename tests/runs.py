"""Small runs, and what it means that two of them are equal."""

import dataclasses

import numpy as np

import tinymnist as tm
from tinymnist.batches import Split

SMALL = {  # every model with fewer units, so that a run takes less than a second
    "softmax": {},
    "mlp": {"hidden": (20, 10)},
    "lenet": {"filters": (3, 5), "hidden": 20},
    "dropout-cnn": {"filters": (3, 5), "hidden": 20},
    "cnn": {"filters": (2, 3, 3), "kernels": (5, 3, 1), "strides": (3, 2, 1), "hidden": 9, "rate": 0.25},
}
RULES = {
    "sgd": {"lr": 0.1},
    "momentum": {"lr": 0.05, "momentum": 0.9},
    "adagrad": {"lr": 0.02},
    "rmsprop": {"lr": 0.003},
    "adadelta": {},
}


def digits(train=330, test=50):
    """The first embedded digits."""
    data = tm.load("digits")
    return data._replace(
        train=Split(data.train.images[:train], data.train.labels[:train]),
        test=Split(data.test.images[:test], data.test.labels[:test]),
    )


def make_run(data, model="softmax", rule="adagrad", *, hyper=None, arguments=None, **settings):
    """A Run before its first batch."""
    network = tm.models.MODELS[model](**(SMALL[model] if arguments is None else arguments))
    settings = {"epochs": 2, "batch_size": 10, "log_interval": 7, **settings}
    return tm.Run(network, tm.Optimizer(rule, **(hyper or RULES[rule])), data, tm.Settings(**settings))


def stop_at(batch):
    """An on_batch that stops the run after this many batches of an epoch, or at the next point that can be resumed."""

    def on_batch(run, examples):
        run.stop = run.position.batch >= batch

    return on_batch


def bits(run):
    """Everything that two equal runs have in common, to the last bit: weights, the rule's state, position, history."""
    arrays = [run.model.weights, *run.optimizer.state]
    history = [dataclasses.asdict(epoch) for epoch in run.history]
    for epoch in history:
        del epoch["seconds"], epoch["speed"]  # they depend on the clock
    return (
        [array.asnumpy().tobytes() for array in arrays],
        run.position.epoch,
        run.position.batch,
        run.position.seen,
        history,
    )


def check_close(run, expected, atol):
    """Both runs have the same weights, states and history, within rounding errors."""
    arrays = [array.asnumpy() for array in (expected.model.weights, *expected.optimizer.state)]
    for step in run.steps:
        for found, array in zip((step.model.weights, *step.optimizer.state), arrays):
            np.testing.assert_allclose(found.asnumpy(), array, rtol=0, atol=atol)
    assert len(run.history) == len(expected.history)
    for found, epoch in zip(run.history, expected.history):
        assert (found.train_accuracy, found.test_accuracy) == (epoch.train_accuracy, epoch.test_accuracy)
        np.testing.assert_allclose([found.loss, found.test_loss], [epoch.loss, epoch.test_loss], rtol=atol)
        np.testing.assert_allclose(found.curve, epoch.curve, rtol=atol)
