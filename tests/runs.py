"""Small runs, and what it means that two of them are equal."""

import dataclasses

import tinymnist as tm
from tinymnist.batches import Split

SMALL = {  # every model with fewer units, so that a run takes less than a second
    "softmax": {},
    "mlp": {"hidden": (20, 10)},
    "lenet": {"filters": (3, 5), "hidden": 20},
    "dropout-cnn": {"filters": (3, 5), "hidden": 20},
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


begun, stopping = make_run, stop_at  # old names, until all tests use the new ones
