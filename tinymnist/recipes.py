"""What to train with: published experiments by name, and hyper-parameters that suit each model and rule."""

from __future__ import annotations

from typing import NamedTuple

# Where nothing else is said. Softmax regression has the published ones (recipes softmax-…), the others one set for all.
HYPER = {
    "softmax": {
        "sgd": {"lr": 0.1},
        "momentum": {"lr": 0.2, "momentum": 0.9},
        "adagrad": {"lr": 0.9},
        "rmsprop": {"lr": 0.03, "rho": 0.9},
        "adadelta": {"rho": 0.9999},
    },
    "other": {
        "sgd": {"lr": 0.1},
        "momentum": {"lr": 0.05, "momentum": 0.9},
        "adagrad": {"lr": 0.02},
        "rmsprop": {"lr": 0.001, "rho": 0.9},
        "adadelta": {"rho": 0.95},
    },
}
SETTINGS = {"softmax": {"epochs": 5, "batch_size": 64}, "dropout-cnn": {"epochs": 8, "batch_size": 64}}


def hyper(model, rule):
    """The hyper-parameters to train a model by a rule with, both by name, where none are given."""
    return dict(HYPER.get(model, HYPER["other"]).get(rule, {}))


class Recipe(NamedTuple):
    """A named experiment: `published` says what was reported, `then` for how many epochs to go on from the saved state."""

    title: str
    published: str
    model: str
    arguments: dict
    rule: str
    hyper: dict
    settings: dict
    then: int = 0


def _softmax(rule, published):
    title = f"softmax regression by {rule}: one of five rules side by side (scripts/compare.py runs all)"
    settings = {"epochs": 5, "batch_size": 64}
    return Recipe(
        title, f"train/test % after 5 epochs: {published}", "softmax", {}, rule, HYPER["softmax"][rule], settings
    )


TEN = {"epochs": 10, "batch_size": 100}
UNIFORM = ("uniform", 0.07)  # Gluon's default
XAVIER = ("xavier", 2.24)

RECIPES = {
    "softmax-sgd": _softmax("sgd", "87.42/87.67"),
    "softmax-momentum": _softmax("momentum", "91.53/90.67"),
    "softmax-adagrad": _softmax("adagrad", "92.39/91.49"),
    "softmax-rmsprop": _softmax("rmsprop", "91.70/91.12"),
    "softmax-adadelta": _softmax("adadelta", "89.68/89.34"),
    "mlp": Recipe("MLP 784-128-64-10", "test accuracy above 0.96", "mlp", {"init": UNIFORM}, "sgd", {"lr": 0.1}, TEN),
    "lenet": Recipe("LeNet, tanh", "test accuracy above 0.98", "lenet", {"init": UNIFORM}, "sgd", {"lr": 0.1}, TEN),
    "cnn-tanh": Recipe(
        *("a configurable convolutional net, tanh", "test accuracy 0.9877", "lenet"),
        *({"activation": "tanh", "init": UNIFORM}, "sgd", {"lr": 0.1}, TEN),
    ),
    "cnn-relu": Recipe(
        *("a configurable convolutional net, ReLU", "test accuracy 0.9878", "lenet"),
        *({"activation": "relu", "init": UNIFORM}, "sgd", {"lr": 0.1}, TEN),
    ),
    "mlp-xavier": Recipe(
        *(
            "the imperative MLP, Xavier, every batch split over two devices",
            "test accuracy above 0.94, around 0.96",
            "mlp",
        ),
        *({"init": XAVIER}, "sgd", {"lr": 0.02}, {**TEN, "device": "cpu:0,cpu:1"}),
    ),
    "lenet-xavier": Recipe(
        *("the imperative LeNet, Xavier, tanh on its output too", "test accuracy above 0.98", "lenet"),
        *({"output_activation": "tanh", "init": XAVIER}, "sgd", {"lr": 0.03}, TEN),
    ),
    "dropout": Recipe(
        *("dropout and normalisation; tested before training, saved after 3 epochs, 5 more from there",),
        *("untrained about 10 %, 97 % after 3 epochs", "dropout-cnn", {}, "momentum", {"lr": 0.01, "momentum": 0.5}),
        {"epochs": 3, "batch_size": 64, "normalize": True, "log_interval": 10},
        then=5,
    ),
    "best": Recipe(
        *(
            "our own: wider, with dropout, altered images and a falling learning rate",
            "none; at least 0.994 is the aim",
        ),
        *("dropout-cnn", {"filters": (32, 64), "hidden": 256, "rate": 0.3}, "momentum", {"lr": 0.05, "momentum": 0.9}),
        {"epochs": 20, "batch_size": 100, "augment": True, "normalize": True, "lr_decay": 0.85},
    ),
}
