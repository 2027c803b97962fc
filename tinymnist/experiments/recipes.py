"""What to train with: published experiments by name, and settings that suit each model and update rule."""

from __future__ import annotations

from typing import NamedTuple

from tinymnist.batches import Split
from tinymnist.datasets.load import Data, load
from tinymnist.models import MODELS
from tinymnist.optim import RULES, Optimizer
from tinymnist.runtime import checkpoint
from tinymnist.runtime.run import Run, resume
from tinymnist.runtime.settings import Settings

# Chosen by the loss on held-out training images. LeNet's tanh needs smaller first steps of adagrad and adadelta: large
# ones saturate it.
USUAL = {
    "sgd": {"lr": 0.1},
    "momentum": {"lr": 0.05, "momentum": 0.9},
    "adagrad": {"lr": 0.02},
    "rmsprop": {"lr": 0.001, "rho": 0.9},
    "adadelta": {"rho": 0.95},
}
HYPER = dict.fromkeys(MODELS, USUAL) | {
    "softmax": {
        **USUAL,
        "momentum": {"lr": 0.02, "momentum": 0.9},
        "adagrad": {"lr": 0.05},
        "adadelta": {"rho": 0.9, "eps": 1e-6},
    },
    "lenet": {**USUAL, "adagrad": {"lr": 0.005}, "adadelta": {"rho": 0.95, "eps": 1e-6}},
}
# the usual settings of each model, where they differ from the defaults of Settings
SETTINGS = {"softmax": {"epochs": 5, "batch_size": 64}, "dropout-cnn": {"epochs": 8, "batch_size": 64}}

# Published for softmax regression on MNIST: initial weights, hyper-parameters, and (training, test) accuracy in % after
# epochs 1 to 5.
FIVE_RULES_INIT = {"init": ("normal", 1.0)}
FIVE_RULES_HYPER = {
    "sgd": {"lr": 0.1},
    "momentum": {"lr": 0.2, "momentum": 0.9},
    "adagrad": {"lr": 0.9},
    "rmsprop": {"lr": 0.03, "rho": 0.9},
    "adadelta": {"rho": 0.9999},
}
FIVE_RULES = {
    "sgd": [(80.18, 81.41), (83.99, 84.86), (85.59, 86.08), (86.69, 87.23), (87.42, 87.67)],
    "momentum": [(88.50, 88.85), (90.59, 90.26), (90.81, 90.53), (90.95, 90.28), (91.53, 90.67)],
    "adagrad": [(90.48, 90.08), (91.50, 90.59), (92.29, 91.30), (91.83, 90.58), (92.39, 91.49)],
    "rmsprop": [(88.99, 88.26), (90.35, 90.28), (90.29, 89.79), (89.37, 88.71), (91.70, 91.12)],
    "adadelta": [(88.63, 88.67), (89.66, 89.48), (89.62, 89.60), (91.19, 90.62), (89.68, 89.34)],
}
MNIST = "2e8bca69"  # the fingerprint of MNIST
HELD_OUT = "; instead of the test images, the last "  # in Data.source; resume_run looks for it


class Recipe(NamedTuple):
    """A named experiment. `published` says which result was published, and where."""

    title: str
    published: str
    model: str
    arguments: dict
    rule: str
    hyper: dict
    settings: dict
    untrained: bool = False  # True: also test the model before the first step
    then: int = 0  # train this many more epochs from the saved checkpoint


PLAIN = Recipe("", "", "softmax", {}, "sgd", {}, {})  # in place of a recipe, if none is named
TEN_EPOCHS = {"epochs": 10, "batch_size": 100}
UNIFORM, XAVIER = ("uniform", 0.07), ("xavier", 2.24)  # uniform 0.07 is Gluon's default
NOTEBOOK = '"Experiments with MXNet and Handwritten Digits recognition", a notebook'
SYMBOLIC = '"Handwritten Digit Recognition", Apache MXNet tutorial, symbolic version'
GLUON = '"Handwritten Digit Recognition", Apache MXNet tutorial, Gluon version'
MLP = Recipe(
    title="MLP 784-128-64-10",
    published=f"test accuracy above 0.96 in {SYMBOLIC}",
    model="mlp",
    arguments={"init": UNIFORM},
    rule="sgd",
    hyper={"lr": 0.1},
    settings=TEN_EPOCHS,
)
LENET = MLP._replace(
    title="LeNet with tanh",
    published=f"test accuracy above 0.98 in {SYMBOLIC}",
    model="lenet",
    arguments={"activation": "tanh", "init": UNIFORM},
)
TANH = LENET._replace(
    title="a configurable convolutional net with tanh; trains exactly as lenet does",
    published='test accuracy 0.9877 in "Training MNIST with MXNet", a notebook',
)

# Chosen by accuracy on held-out training images (--hold-out 5000), as docs/RESULTS.md tells.
FAST = Recipe(
    title="a small network with strides, and one cycle of the learning rate",
    published="nothing, this one is our own; it aims at a test accuracy of 0.99 in about ten seconds",
    model="cnn",
    arguments={"filters": (12, 32), "hidden": 256},
    rule="momentum",
    hyper={"lr": 0.05, "momentum": 0.9},
    settings={"epochs": 3, "batch_size": 100, "normalize": True, "one_cycle": True},
)


def make_softmax_recipe(rule):
    train, test = FIVE_RULES[rule][-1]
    title = f"softmax regression with {rule}; scripts/compare.py runs all five rules"
    published = (
        f"{train:.2f} % of the training set and {test:.2f} % of the test set correct after 5 epochs in {NOTEBOOK}"
    )
    return Recipe(title, published, "softmax", FIVE_RULES_INIT, rule, FIVE_RULES_HYPER[rule], SETTINGS["softmax"])


RECIPES = {
    **{f"softmax-{rule}": make_softmax_recipe(rule) for rule in FIVE_RULES},
    "mlp": MLP,
    "lenet": LENET,
    "cnn-tanh": TANH,
    "cnn-relu": TANH._replace(
        title="the configurable convolutional net with ReLU",
        published='test accuracy 0.9878 in "Training MNIST with MXNet", a notebook',
        arguments={"activation": "relu", "init": UNIFORM},
    ),
    "mlp-xavier": MLP._replace(
        title="the Gluon tutorial's MLP: Xavier initialization, each batch split over two devices",
        published=f"test accuracy above 0.94, around 0.96, in {GLUON}",
        arguments={"init": XAVIER},
        hyper={"lr": 0.02},
        settings={**TEN_EPOCHS, "device": "cpu:0,cpu:1"},
    ),
    "lenet-xavier": LENET._replace(
        title="the Gluon tutorial's LeNet: Xavier initialization, tanh on its output too",
        published=f"test accuracy above 0.98 in {GLUON}",
        arguments={"activation": "tanh", "output_activation": "tanh", "init": XAVIER},
        hyper={"lr": 0.03},
    ),
    "dropout": Recipe(
        title="dropout and normalized pixels: tested untrained, saved after 3 epochs, continued for 5 more",
        published="test accuracy about 0.10 untrained and 0.97 after 3 epochs in "
        '"MNIST Handwritten Digit Recognition in PyTorch", Nextjournal, 2018',
        model="dropout-cnn",
        arguments={},
        rule="momentum",
        hyper={"lr": 0.01, "momentum": 0.5},
        settings={"epochs": 3, "batch_size": 64, "normalize": True, "log_interval": 10},
        untrained=True,
        then=5,
    ),
    # Chosen among three candidates by accuracy on held-out training images (--hold-out 5000), not on the test set.
    "best": Recipe(
        title="wider layers, less dropout, augmented training images and a falling learning rate",
        published="nothing, this one is our own; it aims at a test accuracy of 0.994",
        model="dropout-cnn",
        arguments={"filters": (16, 64), "hidden": 256, "rate": 0.2},
        rule="momentum",
        hyper={"lr": 0.05, "momentum": 0.9},
        settings={"epochs": 14, "batch_size": 100, "augment": True, "normalize": True, "lr_decay": 0.8},
    ),
    "small": FAST._replace(
        title="few parameters: four small convolutions, no hidden layer",
        published="nothing, this one is our own; it aims at a test accuracy of 0.99 with 4,786 parameters",
        arguments={"filters": (8, 12, 12, 16), "kernels": (5, 3, 3, 3), "strides": (2, 1, 2, 1), "hidden": None},
        settings={"epochs": 40, "batch_size": 100, "augment": True, "normalize": True, "one_cycle": True},
    ),
    "fast": FAST,
    "fast-digits": FAST._replace(
        title="the same network, for the embedded digits: --data digits",
        settings={**FAST.settings, "epochs": 30, "batch_size": 50},
    ),
}


def published_accuracies(model, rule, hyper, data):
    """[(training %, test %) after epoch 1, …] if published for this model, rule, hyper-parameters and data, else []."""
    same = model == "softmax" and hyper == Optimizer(rule, **FIVE_RULES_HYPER[rule]).hyper
    return FIVE_RULES[rule] if same and data.fingerprint == MNIST else []


def hold_out(data, n):
    """The data with the last n training images as the test set, so that settings are not chosen by the real one."""
    if not 0 < n < len(data.train.labels):
        raise ValueError(f"of {len(data.train.labels):,} training images 1 to all but one can be held out, not {n:,}")
    train, test = Split(*(array[:-n] for array in data.train)), Split(*(array[-n:] for array in data.train))
    return Data(train, test, data.name, f"{data.source}{HELD_OUT}{n:,} training images")


def check_options(kind, name, options, table):
    """Raise ValueError for an option that the model or rule does not have, and say which ones have it."""
    for option in options:
        if option not in table[name]:
            others = [other for other, has in table.items() if option in has]
            raise ValueError(f"{name} has no --{option}; use --{kind} {' or '.join(others)}")


def make_arguments(model, options):
    """Command-line options as arguments of the model. mlp takes `hidden` as a list, other models as a number."""
    check_options("model", model, options, {name: make().arguments for name, make in MODELS.items()})
    for name in ("hidden", "filters", "kernels", "strides"):
        if name in options and min(options[name]) < 1:
            raise ValueError(f"{name} must be whole numbers of at least 1, not {' '.join(map(str, options[name]))}")
    if "hidden" in options and model != "mlp":
        if len(options["hidden"]) > 1:
            raise ValueError(f"{model} has one hidden layer, not {len(options['hidden'])}; mlp can have several")
        options = {**options, "hidden": options["hidden"][0]}
    return options


def make_run(where, *, recipe=None, model=None, rule=None, options, hyper, settings, held_out=None):
    """A Run of a recipe, or of a model and a rule with defaults. All other arguments override these.

    `where` is the argument of load. Raises ValueError for what does not fit together, if possible before it loads the
    data.
    """
    if recipe is not None and recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}; the recipes are {', '.join(RECIPES)}")
    base = RECIPES.get(recipe, PLAIN)
    model, rule = model or base.model, rule or base.rule
    arguments = {**(base.arguments if model == base.model else {}), **make_arguments(model, options)}
    check_options("opt", rule, hyper, {name: each.hyper for name, each in RULES.items()})
    suitable = base.hyper if recipe and rule == base.rule else HYPER[model].get(rule, {})
    optimizer = Optimizer(rule, **{**suitable, **hyper})
    data = load(where) if held_out is None else hold_out(load(where), held_out)
    defaults = base.settings if recipe else dict(SETTINGS.get(model, {}))
    if data.name == "digits" and not recipe:
        defaults["epochs"] = 20  # they are few
    network = MODELS[model](image=(1, *data.train.images.shape[1:]), classes=data.classes, **arguments)
    return Run(network, optimizer, data, Settings(**{**defaults, **settings}))


def resume_run(directory, where=None, *, held_out=None, **changes):
    """The Run saved in `directory`, by default on the same data, with the same images held out."""
    state = checkpoint.newest(directory)[0]
    data = load(where or state["where"])
    if held_out is None and HELD_OUT in state["source"]:
        held_out = len(data.train.labels) - state["examples"]
    return resume(directory, data if held_out is None else hold_out(data, held_out), **changes)
