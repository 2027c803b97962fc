"""Every gradient, of every operation, layer and model, against finite differences in float64."""

import numpy as np
import pytest
from proof import VARIANTS, finite_differences, numbers

from tinymnist import layers, loss, models, ops
from tinymnist.backend import mx, nd

X, IMAGES, LABELS = (4, 6), (2, 3, 7, 8), [3, 0, 5, 1]


def fix_seed(f):
    """f with the same random numbers in every call"""

    def call(*inputs):
        mx.random.seed(3)
        return f(*inputs)

    return call


OPERATIONS = {  # name: function, shapes of its inputs
    "dense": (ops.dense, X, (5, 6), (5,)),
    "dense of images": (ops.dense, IMAGES, (5, 168), (5,)),
    "conv2d": (ops.conv2d, IMAGES, (4, 3, 5, 5), (4,)),
    "conv2d strided": (lambda *i: ops.conv2d(*i, stride=(2, 3)), IMAGES, (4, 3, 3, 2), (4,)),
    "conv2d padded, dilated": (lambda *i: ops.conv2d(*i, pad=(1, 2), dilate=(2, 3)), IMAGES, (4, 3, 3, 2), (4,)),
    "conv2d without bias": (ops.conv2d, IMAGES, (4, 3, 3, 3)),
    "conv2d CHWN": (lambda *i: ops.conv2d(*i, pad=1, stride=2, layout="CHWN"), (3, 7, 8, 2), (4, 3, 3, 3), (4,)),
    "max_pool2d": (lambda x: ops.max_pool2d(x, 2), IMAGES),
    "max_pool2d overlapping": (lambda x: ops.max_pool2d(x, (3, 2), stride=1), IMAGES),
    "max_pool2d gapped": (lambda x: ops.max_pool2d(x, 2, stride=3), IMAGES),
    "max_pool2d padded": (lambda x: ops.max_pool2d(x, 3, stride=2, pad=1), IMAGES),
    "avg_pool2d": (lambda x: ops.avg_pool2d(x, 2), IMAGES),
    "avg_pool2d padded": (lambda x: ops.avg_pool2d(x, (3, 2), stride=1, pad=1), IMAGES),
    "relu": (ops.relu, X),
    "tanh": (ops.tanh, X),
    "sigmoid": (ops.sigmoid, X),
    "flatten": (ops.flatten, IMAGES),
    "dropout": (fix_seed(lambda x: ops.dropout(x, 0.5)), X),
    "dropout of channels": (fix_seed(lambda x: ops.dropout(x, 0.25, axes=(2, 3))), IMAGES),
    "log_softmax": (loss.log_softmax, X),
    "softmax": (loss.softmax, X),
    "softmax_cross_entropy": (lambda z: loss.softmax_cross_entropy(z, nd.array(LABELS, z.context)), X),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name, device):
    f, *shapes = OPERATIONS[name]
    inputs = numbers("float64", *shapes) if len(shapes) > 1 else [numbers("float64", *shapes)]
    finite_differences(f, *inputs, device=device)


def as_function(network):
    """A network as a function of its input and of all its parameters, and the shapes of these"""
    network.allocate(dtype="float64")

    def f(x, *values):
        for name, value in zip(network.parameters, values):
            number, kind = name.split(".")
            setattr(network.layers[int(number)], kind, value)
        return network(x)

    return fix_seed(f), network.shapes.values()


LAYERS = [
    layers.Dense(5),
    layers.Conv2D(4, (3, 2), stride=(2, 1), pad=(0, 2), dilate=(1, 2)),
    layers.MaxPool2D(3, stride=2, pad=1),
    layers.AvgPool2D((3, 2), stride=1, pad=1),
    *map(layers.Activation, ("relu", "tanh", "sigmoid")),
    layers.Dropout(0.5),
    layers.Dropout(0.5, channels=True),
    layers.Flatten(),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_layers(layer, device):
    f, shapes = as_function(layers.Sequential(layer, layers.Dense(5), image=IMAGES[1:]))
    finite_differences(f, *numbers("float64", IMAGES, *shapes), device=device)


@pytest.mark.parametrize("name, arguments", VARIANTS)
def test_whole_models_to_the_loss(name, arguments, device):
    f, shapes = as_function(models.MODELS[name](**arguments))
    x, *weights = numbers("float64", (4, 1, 28, 28), *shapes)
    weights = [w / np.sqrt(w[0].size) for w in weights]  # no activation saturates then

    def mean_loss(*inputs):
        return loss.softmax_cross_entropy(f(*inputs), nd.array(LABELS, device))

    finite_differences(mean_loss, x, *weights, directions=3, device=device)
