"""Small runs, and what it means that two of them are the same."""

import dataclasses

import tinymnist as tm
from tinymnist.datasets.load import Split

SMALL = {  # of every model, its layers and its dropout with fewer units
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
    """The first of the embedded digits"""
    data = tm.load("digits")
    parts = (Split(*(array[:n] for array in split)) for split, n in zip(data, (train, test)))
    return data._replace(**dict(zip(("train", "test"), parts)))


def begun(data, model="softmax", rule="adagrad", *, hyper=None, arguments=None, **settings):
    """A Run that has not taken a step"""
    made = tm.models.MODELS[model](**(SMALL[model] if arguments is None else arguments))
    settings = {"epochs": 2, "batch_size": 10, "log_interval": 7, **settings}
    return tm.Run(made, tm.Optimizer(rule, **(hyper or RULES[rule])), data, tm.Settings(**settings))


def stopping(batch):
    """An on_batch that ends the run at the first batch from `batch` on where it can"""

    def on_batch(run, examples):
        run.stop = run.batch >= batch

    return on_batch


def bits(run):
    """All of a run that must come out the same, to the last bit: weights, state of the rule, all it saw and printed"""
    arrays = [run.model.weights, *run.optimizer.state]
    history = [dataclasses.asdict(epoch) for epoch in run.history]
    for epoch in history:
        del epoch["seconds"], epoch["speed"]  # the clock's
    return [a.asnumpy().tobytes() for a in arrays], run.epoch, run.batch, run.seen, history
