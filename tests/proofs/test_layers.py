"""Every layer equals Gluon's, anywhere in a network. Parameters are views of one vector, under Gluon's names."""

import math

import numpy as np
import pytest
from proof import TOLERANCE, difference, numbers

from tinymnist.backend import autograd, mx, nd
from tinymnist.layers import Activation, AvgPool2D, Conv2D, Dense, Dropout, Flatten, MaxPool2D, Sequential
from tinymnist.models import lenet, mlp
from tinymnist.runtime.step import copy_model, has_dropout

nn = mx.gluon.nn
IMAGE = (3, 9, 8)
NETWORKS = {  # ours and Gluon's
    "dense": lambda: [(Dense(5), nn.Dense(5))],
    "convolution": lambda: [(Conv2D(4, 3), nn.Conv2D(4, 3))],
    "strided": lambda: [(Conv2D(4, (3, 2), stride=(2, 1)), nn.Conv2D(4, (3, 2), strides=(2, 1)))],
    "padded": lambda: [(Conv2D(4, (2, 5), pad=(0, 2)), nn.Conv2D(4, (2, 5), padding=(0, 2)))],
    "dilated": lambda: [(Conv2D(4, (2, 3), dilate=(2, 1)), nn.Conv2D(4, (2, 3), dilation=(2, 1)))],
    "all three": lambda: [
        (Conv2D(4, 3, stride=2, pad=1, dilate=3), nn.Conv2D(4, 3, strides=2, padding=1, dilation=3)),
    ],
    "max": lambda: [(MaxPool2D(2), nn.MaxPool2D(2))],
    "max 2x3": lambda: [(MaxPool2D((2, 3)), nn.MaxPool2D((2, 3)))],
    "max strided": lambda: [(MaxPool2D(3, stride=(2, 1)), nn.MaxPool2D(3, strides=(2, 1)))],
    "max padded": lambda: [(MaxPool2D(3, pad=(1, 0)), nn.MaxPool2D(3, padding=(1, 0)))],
    "average": lambda: [(AvgPool2D(2), nn.AvgPool2D(2))],
    "average of both": lambda: [
        (AvgPool2D((3, 2), stride=(1, 2), pad=(1, 0)), nn.AvgPool2D((3, 2), strides=(1, 2), padding=(1, 0))),
    ],
    "relu": lambda: [(Activation("relu"), nn.Activation("relu"))],
    "tanh": lambda: [(Activation("tanh"), nn.Activation("tanh"))],
    "sigmoid": lambda: [(Activation("sigmoid"), nn.Activation("sigmoid"))],
    "no dropout": lambda: [(Dropout(0), nn.Dropout(0))],
    "flatten": lambda: [(Flatten(), nn.Flatten())],
    "flatten twice": lambda: [(Flatten(), nn.Flatten()), (Flatten(), nn.Flatten())],
    "dense, tanh": lambda: [(Dense(5), nn.Dense(5)), (Activation("tanh"), nn.Activation("tanh"))],
    "tanh, flatten": lambda: [(Activation("tanh"), nn.Activation("tanh")), (Flatten(), nn.Flatten())],
    "convolution, flatten": lambda: [(Conv2D(4, 3), nn.Conv2D(4, 3)), (Flatten(), nn.Flatten())],
    "convolution, max": lambda: [(Conv2D(4, 3), nn.Conv2D(4, 3)), (MaxPool2D(2), nn.MaxPool2D(2))],
    "two convolutions": lambda: [(Conv2D(4, 3), nn.Conv2D(4, 3)), (Conv2D(2, 4), nn.Conv2D(2, 4))],
}


def forward_and_backward(network, x):
    """The result of a network, and the gradient of its input"""
    x.attach_grad()
    with autograd.record():
        y = network(x)
    y.backward(nd.array(numbers(y.dtype, y.shape, seed=3), x.context, y.dtype))
    return [y.asnumpy(), x.grad.asnumpy()]


@pytest.mark.parametrize("end", [[], [lambda: (Dense(2), nn.Dense(2))]], ids=["", "then dense"])
@pytest.mark.parametrize("pairs", NETWORKS.values(), ids=NETWORKS)
def test_a_network_equals_gluons(pairs, end, dtype, device):
    layers, blocks = zip(*pairs(), *(last() for last in end))
    ours, gluon = Sequential(*layers, image=IMAGE), nn.Sequential()
    gluon.add(*blocks)
    gluon.cast(dtype)
    gluon.initialize(ctx=device)
    x = nd.array(numbers(dtype, (4, *IMAGE)), device, dtype)
    gluon(x)
    theirs = gluon._collect_params_with_prefix()
    if ours.size:
        ours.allocate(device, dtype)
        ours.weights[:] = nd.array(numbers(dtype, (ours.size,), seed=2), device, dtype)  # biases too
    assert {k: v.shape for k, v in ours.parameters.items()} == {k: v.shape for k, v in theirs.items()}
    for name, value in ours.parameters.items():
        theirs[name].set_data(value)
    results = zip(forward_and_backward(ours, x), forward_and_backward(gluon, x))
    assert max(difference(a, b) for a, b in results) <= TOLERANCE[dtype]
    if ours.size:
        gradients = np.concatenate([theirs[name].grad().asnumpy().ravel() for name in ours.parameters])
        assert difference(ours.gradients.asnumpy(), gradients) <= TOLERANCE[dtype]


def test_parameters_are_views_of_one_vector(device):
    network = Sequential(Conv2D(2, 3), Activation("relu"), Flatten(), Dense(3), image=(1, 4, 4)).allocate(device)
    assert {name: value.shape for name, value in network.parameters.items()} == {
        "0.weight": (2, 1, 3, 3),
        "0.bias": (2,),
        "3.weight": (3, 8),
        "3.bias": (3,),
    }
    assert network.size == 18 + 2 + 24 + 3 == network.weights.size == network.gradients.size
    network.weights[:] = nd.arange(network.size, ctx=device)
    values = [value.asnumpy().ravel() for value in network.parameters.values()]
    np.testing.assert_array_equal(np.concatenate(values), np.arange(network.size))
    assert network.layers[3].bias.asnumpy().tolist() == [44, 45, 46]


def test_a_second_backward_replaces_the_gradients(device):
    network, x = mlp(hidden=(4,)).initialize(0, device), nd.ones((2, 1, 28, 28), device)
    forward_and_backward(network, x)
    first = network.gradients.asnumpy()
    forward_and_backward(network, x)
    np.testing.assert_array_equal(network.gradients.asnumpy(), first)
    assert np.abs(first).max() > 0


@pytest.mark.parametrize("init", [("normal", 0.5), ("uniform", 0.5), ("xavier", 3.0)])
def test_initialize_draws_weights_and_leaves_biases_at_0(init, dtype, device):
    network = lenet(init=init).initialize(3, device, dtype)
    assert (network.weights.dtype, network.weights.context) == (np.dtype(dtype), device)
    for name, value in network.parameters.items():
        fan_out, fan_in, *kernel = *value.shape, 1
        bound = math.sqrt(3 / ((fan_in + fan_out) * math.prod(kernel) / 2))
        spread = {"normal": 0.5, "uniform": 0.5 / math.sqrt(3), "xavier": bound / math.sqrt(3)}[init[0]]
        assert value.asnumpy().std() == pytest.approx(spread if name.endswith("weight") else 0, rel=0.1)
    again, other = (lenet(init=init).initialize(seed, device, dtype).weights.asnumpy() for seed in (3, 4))
    np.testing.assert_array_equal(network.weights.asnumpy(), again)
    assert (again != other).any()


def test_the_defaults_are_those_of_the_papers():
    assert Sequential(Dense(10)).initialize().weights.asnumpy()[:7840].max() == pytest.approx(
        math.sqrt(6 / 794), rel=1e-3
    )
    network = mlp().initialize()
    np.testing.assert_array_equal(network.weights.asnumpy(), mlp().initialize(0).weights.asnumpy())
    assert (network.weights.context, network.weights.dtype) == (mx.cpu(), np.float32)


def test_a_copy_is_equal_and_independent(device):
    network, x = lenet(filters=(2, 3)).initialize(1, device), nd.array(numbers("float32", (2, 1, 28, 28)), device)
    network.mean, network.std = 0.5, 0.25
    twin = copy_model(network, device)
    np.testing.assert_array_equal(twin(x).asnumpy(), network(x).asnumpy())
    assert (twin.mean, twin.std, twin.image, twin.init) == (0.5, 0.25, network.image, network.init)
    before = network(x).asnumpy()
    twin.weights[:] = 0
    assert (twin(x).asnumpy() == 0).all()
    np.testing.assert_array_equal(network(x).asnumpy(), before)


def test_pixels_are_scaled_to_mean_and_deviation(dtype, device):
    network, images = mlp().initialize(0, device, dtype), nd.array([[0, 51, 255]], device, "uint8")
    assert network.scale(images).dtype == np.dtype(dtype)
    np.testing.assert_allclose(network.scale(images).asnumpy(), [[0, 0.2, 1]], rtol=1e-6)
    network.mean, network.std = 0.1, 0.5
    np.testing.assert_allclose(network.scale(images).asnumpy(), [[-0.2, 0.2, 1.8]], rtol=1e-6)


@pytest.mark.parametrize("before", [[], [Conv2D(3, 1)], [Activation("relu")]], ids=["first", "second", "after relu"])
def test_channel_dropout_drops_whole_channels(before, device):
    network = Sequential(*before, Dropout(0.5, channels=True), image=(3, 5, 6))
    if network.size:
        network.allocate(device).weights[:] = 1
    with autograd.train_mode():
        y = network(nd.ones((40, 3, 5, 6), device)).asnumpy()
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :, :1, :1], y.shape))
    assert all((np.diff(y[:, :, 0, 0], axis=axis) != 0).any() for axis in range(2))  # each on its own


def test_plain_dropout_drops_single_pixels(device):
    with autograd.train_mode():
        y = Sequential(Dropout(0.25), image=(3, 5, 6))(nd.ones((40, 3, 5, 6), device)).asnumpy()
    assert all((np.diff(y, axis=axis) != 0).any() for axis in range(4))
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.04)


def test_a_network_with_dropout_is_recognized():
    assert has_dropout(Sequential(Dense(3), Dropout(0.5)))
    assert not has_dropout(Sequential(Dense(3), Activation("relu")))


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: Activation("gelu"), "no activation 'gelu'; the activations are relu, tanh, sigmoid"),
        (lambda: Activation("dense"), "no activation 'dense'"),
        (lambda: Dropout(1), r"dropout rate lies in \[0, 1\), not 1"),
        (lambda: Sequential(Conv2D(1, 5), image=(1, 4, 9)), "a window of 5 is larger than the 4 pixels"),
        (lambda: Sequential(Conv2D(1, 3, dilate=2), image=(1, 9, 4)), "a window of 5 is larger than the 4 pixels"),
        (
            lambda: Sequential(Conv2D(1, 2), MaxPool2D((1, 4)), image=(1, 4, 4)),
            "a window of 4 is larger than the 3 pixels",
        ),
        (lambda: Sequential(AvgPool2D(2, stride=-1)), "at least 1, not 2, -1 and 1"),
    ],
)
def test_layers_that_do_not_fit_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
