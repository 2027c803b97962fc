"""Every layer equals Gluon's, anywhere in a network. Parameters are views of one vector, under Gluon's names."""

import copy
import pickle

import numpy as np
import pytest
from proof import TOLERANCE, difference, numbers

from tinymnist import init, layers
from tinymnist.backend import autograd, mx, nd
from tinymnist.layers import Activation, AvgPool2D, Conv2D, Dense, Dropout, Flatten, MaxPool2D, Sequential
from tinymnist.models import lenet, mlp
from tinymnist.runtime.step import copy_model, has_dropout

nn = mx.gluon.nn
IMAGE = (3, 9, 8)
LAYERS = """
    Dense(5)
    Conv2D(4, 3)
    Conv2D(4, (3, 2), stride=(2, 1))
    Conv2D(4, (2, 5), pad=(0, 2))
    Conv2D(4, (2, 3), dilate=(2, 1))
    MaxPool2D((2, 3))
    MaxPool2D(3, stride=(2, 1), pad=(1, 0))
    AvgPool2D(2)
    AvgPool2D((3, 2), stride=(1, 2), pad=(1, 0))
    Activation("relu")
    Activation("tanh")
    Activation("sigmoid")
    Dropout(0)
    Flatten()
    Flatten(), Flatten()
    Dense(5), Activation("tanh")"""


def forward_and_backward(network, x):
    """The result of a network, and the gradient of its input"""
    x.attach_grad()
    with autograd.record():
        y = network(x)
    y.backward(nd.array(numbers(y.dtype, y.shape, seed=3), x.context, y.dtype))
    return [y.asnumpy(), x.grad.asnumpy()]


@pytest.mark.parametrize("network", ["{}, Dense(2)", "Conv2D(4, 1), {}"])
@pytest.mark.parametrize("text", [line.strip() for line in LAYERS.strip().splitlines()])
def test_a_network_equals_gluons(network, text, dtype, device):
    text = network.format(text)
    gluons = text.replace("stride", "strides").replace("pad", "padding").replace("dilate", "dilation")
    ours = Sequential(*eval(f"[{text}]", vars(layers)), image=IMAGE).allocate(device, dtype)
    gluon = nn.Sequential()
    gluon.add(*eval(f"[{gluons}]", vars(nn)))
    gluon.cast(dtype)
    gluon.initialize(ctx=device)
    x = nd.array(numbers(dtype, (4, *IMAGE)), device, dtype)
    gluon(x)
    theirs = gluon._collect_params_with_prefix()
    assert {k: v.shape for k, v in ours.parameters.items()} == {k: v.shape for k, v in theirs.items()}
    ours.weights[:] = nd.array(numbers(dtype, (ours.size,), seed=2), device, dtype)  # biases too
    for name, value in ours.parameters.items():
        theirs[name].set_data(value)
    pairs = [*zip(forward_and_backward(ours, x), forward_and_backward(gluon, x))]
    gradients = [theirs[name].grad().asnumpy().ravel() for name in ours.parameters]
    pairs.append((ours.gradients.asnumpy(), np.concatenate(gradients)))
    assert max(difference(a, b) for a, b in pairs) <= TOLERANCE[dtype]


def test_parameters_are_views_of_one_vector(device):
    network = Sequential(Conv2D(2, 3), Activation("relu"), Flatten(), Dense(3), image=(1, 4, 4)).allocate(device)
    shapes = {"0.weight": (2, 1, 3, 3), "0.bias": (2,), "3.weight": (3, 8), "3.bias": (3,)}
    assert {name: value.shape for name, value in network.parameters.items()} == shapes
    assert network.size == 18 + 2 + 24 + 3 == network.weights.size == network.gradients.size
    assert (network.classes, repr(network)) == (3, "Sequential (47 parameters)")
    assert Sequential(Conv2D(4, 3), image=(1, 8, 9)).classes == 4  # one image for each class
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


@pytest.mark.parametrize("kind, number", [("normal", 0.5), ("uniform", 0.5), ("xavier", 3.0)])
def test_initialize_draws_weights_and_leaves_biases_at_0(kind, number, dtype, device):
    network = lenet(init=(kind, number)).initialize(3, device, dtype)
    assert (network.weights.dtype, network.weights.context) == (np.dtype(dtype), device)
    mx.random.seed(3)
    for name, value in network.parameters.items():
        draw = getattr(init, kind) if name.endswith("weight") else lambda shape, _, **how: nd.zeros(shape, **how)
        expected = draw(value.shape, number, ctx=device, dtype=dtype)
        np.testing.assert_array_equal(value.asnumpy(), expected.asnumpy())


def test_a_network_without_weights_can_be_copied():
    twin = copy.deepcopy(mlp(hidden=(4,)))
    assert twin.weights is None
    twin.initialize(3)
    np.testing.assert_array_equal(twin.weights.asnumpy(), mlp(hidden=(4,)).initialize(3).weights.asnumpy())


def test_all_arrays_of_a_network_are_on_its_device():
    other = mx.cpu(1)
    network = Sequential(Conv2D(2, 3), Dense(2), image=(1, 5, 5)).initialize(0, other)
    arrays = [network.weights, network.gradients, *network.parameters.values(), network(nd.ones((2, 1, 5, 5), other))]
    assert {array.context for array in arrays} == {other}
    assert {array.context for array in network.allocate().parameters.values()} == {mx.cpu()}


def test_every_seed_gives_other_weights():
    seeds = (0, 1, 1 << 30, (1 << 31) - 1, 1 << 31, 1 << 32, (1 << 32) + 1, 1 << 40)
    found = {seed: Sequential(Dense(10)).initialize(seed).weights.asnumpy().tobytes() for seed in seeds}
    assert len({*found.values()}) == len(seeds)
    for seed in seeds:  # MXNet takes 31 bits; longer seeds are mixed by numpy
        mx.random.seed(seed if seed < 1 << 31 else int(np.random.SeedSequence(seed).generate_state(1)[0] // 2))
        expected = init.xavier((10, 784)).asnumpy().tobytes()
        assert found[seed].startswith(expected)


def test_the_defaults_are_xavier_the_seed_0_and_float32_on_the_cpu():
    network, twin = Sequential(Dense(10)).initialize(), Sequential(Dense(10), image=(1, 28, 28), init=("xavier", 3.0))
    np.testing.assert_array_equal(network.weights.asnumpy(), twin.initialize(0).weights.asnumpy())
    assert (network.weights.context, network.weights.dtype) == (mx.cpu(), np.float32)


def copy_by_pickle(network):
    return pickle.loads(pickle.dumps(network))


@pytest.mark.parametrize(
    "make_copy", [copy.copy, copy.deepcopy, copy_by_pickle, lambda n: copy_model(n, n.weights.context)]
)
def test_a_copy_is_equal_independent_and_can_be_trained(make_copy, device):
    network, x = lenet(filters=(2, 3)).initialize(1, device), nd.array(numbers("float32", (2, 1, 28, 28)), device)
    network.mean, network.std = 0.5, 0.25
    twin, before = make_copy(network), network(x).asnumpy()
    np.testing.assert_array_equal(twin(x).asnumpy(), before)
    forward_and_backward(network, x)
    forward_and_backward(twin, x)
    np.testing.assert_array_equal(twin.gradients.asnumpy(), network.gradients.asnumpy())
    assert np.abs(twin.gradients.asnumpy()).max() > 0 and (twin.weights.dtype, twin.weights.context) == (
        np.float32,
        device,
    )
    assert (twin.mean, twin.std, twin.image, twin.init) == (0.5, 0.25, network.image, network.init)
    twin.weights[:] = 0  # all its parameters are views
    assert (twin(x).asnumpy() == 0).all()
    np.testing.assert_array_equal(network(x).asnumpy(), before)


def test_pixels_are_scaled_to_mean_and_deviation(dtype, device):
    network = Sequential(Dense(2), image=(1, 1, 3)).initialize(0, device, dtype)
    images = nd.array([0, 51, 255], device, "uint8").reshape((1, 1, 1, 3))
    assert (network.mean, network.std) == (0, 1)  # the defaults
    for mean, std, expected in ((0, 1, [0, 0.2, 1]), (0.1, 0.5, [-0.2, 0.2, 1.8])):
        network.mean, network.std = mean, std
        scaled = network.scale(images)
        assert scaled.dtype == np.dtype(dtype)
        np.testing.assert_allclose(scaled.asnumpy().ravel(), expected, rtol=1e-6)
        np.testing.assert_array_equal(network(images).asnumpy(), network(scaled).asnumpy())


@pytest.mark.parametrize("before", [[], [Conv2D(3, 1)], [Activation("relu")]], ids=["first", "second", "after relu"])
@pytest.mark.parametrize("options", [{}, {"channels": True}], ids=["pixels", "channels"])
def test_dropout_drops_pixels_or_whole_channels(before, options, device):
    network = Sequential(*before, Dropout(0.25, **options), image=(3, 5, 6))
    if network.size:
        network.allocate(device).weights[:] = 1
    with autograd.train_mode():
        y = network(nd.ones((200, 3, 5, 6), device)).asnumpy()
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.08)
    assert has_dropout(network) and not has_dropout(Sequential(*before, Dense(2)))
    varies = [(np.diff(y, axis=axis) != 0).any() for axis in range(4)]
    assert varies == [True, True, not options, not options]


REFUSED = [
    (lambda: Activation("gelu"), "no activation 'gelu'; the activations are relu, tanh, sigmoid"),
    (lambda: Activation("dense"), "no activation 'dense'"),
    (lambda: Dropout(1), r"dropout rate lies in \[0, 1\), not 1"),
    (lambda: Sequential(Conv2D(1, 5), image=(1, 4, 9)), "a window of 5 is larger than the 4 pixels"),
    (lambda: Sequential(Conv2D(1, 3, dilate=2), image=(1, 9, 4)), "a window of 5 is larger than the 4 pixels"),
    (lambda: Sequential(Conv2D(1, 2), MaxPool2D((1, 4)), image=(1, 4, 4)), "a window of 4 is larger than the 3 pixels"),
    (lambda: Sequential(AvgPool2D(2, stride=-1)), "kernel 2, stride -1 and dilate 1 must be at least 1"),
    (lambda: Sequential(MaxPool2D(2, stride=0)), "stride 0"),
    (lambda: MaxPool2D(2, pad=2), r"pad \(2, 2\) must be smaller than kernel \(2, 2\)"),
    (lambda: AvgPool2D((3, 2), pad=(0, 2)), r"pad \(0, 2\) must be smaller than kernel \(3, 2\)"),
    (lambda: Sequential(Conv2D(1, 2, pad=-1)), "pad -1 at least 0"),
    (lambda: Sequential(Conv2D(1, 2, dilate=0)), "dilate 0"),
    (lambda: Conv2D(1, 2.5), "whole numbers or pairs of them, not 2.5"),
    (lambda: Conv2D(1, (1, 2, 3)), r"whole numbers or pairs of them, not \(1, 2, 3\)"),
    (lambda: Sequential(Dense(0)), r"layer 0 cannot have a weight of the shape \(0, 784\)"),
    (lambda: Sequential(Flatten(), Dense(2.0)), r"layer 1 cannot have a weight of the shape \(2.0, 784\)"),
    (lambda: Sequential(Conv2D(0, 3)), r"layer 0 cannot have a weight of the shape \(0, 1, 3, 3\)"),
    (lambda: Sequential(Dense(2), image=(28, 28)), r"image must be \(channels, height, width\), .*, not \(28, 28\)"),
    (lambda: Sequential(Dense(2), init="xavier"), "init must be .*, not 'xavier'"),
    (lambda: Sequential(Dense(2), init=("normal",)), "init must be .*, not \\('normal',\\)"),
    (lambda: Sequential(Dense(2), init=("he", 2)), "init must be .*, not \\('he', 2\\)"),
]


@pytest.mark.parametrize("make, sentence", REFUSED)
def test_layers_that_do_not_fit_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
