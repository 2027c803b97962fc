"""PyTorch computes the same values and gradients, by the same rules. Skipped if it is not installed."""

import numpy as np
import pytest
from commands import module
from proof import TOLERANCE, difference, numbers, record

from tinymnist import loss, models, ops, optim
from tinymnist.backend import autograd, mx, nd

torch = pytest.importorskip("torch")
F, bench = torch.nn.functional, module("bench")


def agree(ours, theirs, *inputs):
    """As `same`: equal values, and equal gradients under one random upstream gradient."""
    dtype = inputs[0].dtype.name
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
    y = theirs(*tensors)
    y.backward(torch.tensor(numbers(dtype, tuple(y.shape), seed=1)))
    for a, b in zip(record(ours, inputs, None, {}), [y.detach(), *(x.grad for x in tensors)]):
        assert difference(a, b.numpy()) <= TOLERANCE[dtype]


CONVOLUTIONS = [  # x, weight, our options, PyTorch's
    ((2, 3, 9, 8), (4, 3, 3, 3), {}, {}),
    ((1, 1, 28, 28), (20, 1, 5, 5), {}, {}),
    ((2, 3, 9, 8), (4, 3, 2, 5), {"stride": 2}, {"stride": 2}),
    ((2, 3, 9, 8), (4, 3, 3, 2), {"stride": (3, 1), "pad": (1, 2)}, {"stride": (3, 1), "padding": (1, 2)}),
    ((2, 3, 9, 8), (4, 3, 3, 3), {"dilate": (2, 3)}, {"dilation": (2, 3)}),
    ((2, 3, 9, 8), (4, 3, 3, 2), {"stride": 2, "pad": 3, "dilate": 3}, {"stride": 2, "padding": 3, "dilation": 3}),
]


@pytest.mark.parametrize("x, weight, options, torchs", CONVOLUTIONS)
def test_conv2d_is_torchs(x, weight, options, torchs, dtype):
    inputs = numbers(dtype, x, weight, weight[:1])
    agree(lambda *i: ops.conv2d(*i, **options), lambda *i: F.conv2d(*i, **torchs), *inputs)


POOLINGS = [  # x, kernel, our options, PyTorch's
    ((2, 3, 8, 8), 2, {}, {}),
    ((2, 3, 9, 8), (3, 2), {}, {}),
    ((2, 3, 9, 8), 3, {"stride": 1}, {"stride": 1}),
    ((2, 3, 9, 8), 3, {"stride": (2, 3), "pad": 1}, {"stride": (2, 3), "padding": 1}),
    ((2, 3, 9, 8), 2, {"stride": 4}, {"stride": 4}),
]


@pytest.mark.parametrize("x, kernel, options, torchs", POOLINGS)
def test_pooling_is_torchs(x, kernel, options, torchs, dtype):
    x = numbers(dtype, x)
    for images in (x, np.round(x)):  # rounded numbers have ties
        agree(lambda x: ops.max_pool2d(x, kernel, **options), lambda x: F.max_pool2d(x, kernel, **torchs), images)
    agree(lambda x: ops.avg_pool2d(x, kernel, **options), lambda x: F.avg_pool2d(x, kernel, **torchs), x)


def test_dense_is_torchs(dtype):
    agree(ops.dense, F.linear, *numbers(dtype, (5, 7), (3, 7), (3,)))
    agree(ops.dense, F.linear, *numbers(dtype, (5, 7), (3, 7)))


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
def test_activations_are_torchs(name, dtype):
    x = 5 * numbers(dtype, (6, 7))
    x[0] = 0
    agree(getattr(ops, name), getattr(torch, name), x)


@pytest.mark.parametrize("scale", [1, 30, 1e4])
def test_the_loss_is_torchs(scale, dtype):
    logits, labels = (scale * numbers(dtype, (6, 10))).astype(dtype), np.arange(6)
    agree(loss.log_softmax, lambda z: F.log_softmax(z, 1), logits)
    agree(
        lambda z: loss.softmax_cross_entropy(z, nd.array(labels)),
        lambda z: F.cross_entropy(z, torch.tensor(labels)).reshape(1),
        logits,
    )


@pytest.mark.parametrize(
    "name, hyper",
    [
        ("sgd", {"lr": 0.1}),
        ("momentum", {"lr": 0.1}),
        ("momentum", {"lr": 0.1, "momentum": 0.99}),
        ("adadelta", {}),
        ("adadelta", {"rho": 0.99, "eps": 1e-3}),
        ("adagrad", {"lr": 0.1, "eps": 1e-30}),  # PyTorch adds eps outside the root; so small, it changes nothing
        ("rmsprop", {"lr": 0.1, "eps": 1e-30}),
    ],
)
def test_rules_are_torchs(name, hyper):
    w, *gradients = numbers("float64", *[(50,)] * 41)
    ours, theirs = nd.array(w, dtype="float64"), torch.tensor(w, requires_grad=True)
    rule = optim.Optimizer(name, **hyper)
    torch_rule = bench.torch_rule(name, rule.hyper, [theirs])
    for g in gradients:
        rule.step(ours, nd.array(g, dtype="float64"))
        theirs.grad = torch.tensor(g)
        torch_rule.step()
        assert difference(ours.asnumpy(), theirs.detach().numpy()) <= 1e-12


@pytest.mark.parametrize("name", models.MODELS)
def test_logits_and_gradients_of_models_are_torchs(name, dtype):
    x, labels = numbers(dtype, (8, 1, 28, 28)), np.arange(8)
    ours = models.MODELS[name]().initialize(2, dtype=dtype)
    weights = [p.asnumpy() for p in ours.parameters.values()]
    theirs = bench.torch_network(name, weights, "tanh" if name == "lenet" else "relu").eval()
    with autograd.record(train_mode=False):
        logits = ours(nd.array(x, dtype=dtype))
        value = loss.softmax_cross_entropy(logits, nd.array(labels))
    value.backward()
    expected = theirs(torch.tensor(x))
    F.cross_entropy(expected, torch.tensor(labels)).backward()
    gradients = np.concatenate([p.grad.numpy().ravel() for p in theirs.parameters()])
    assert difference(logits.asnumpy(), expected.detach().numpy()) <= TOLERANCE[dtype]
    assert difference(ours.gradients.asnumpy(), gradients) <= TOLERANCE[dtype]


def test_dropout_drops_torchs_share_of_channels():
    ones = np.ones((100, 50, 4, 4), "float32")
    mx.random.seed(1)
    with autograd.train_mode():
        ours = ops.dropout(nd.array(ones), 0.25, axes=(2, 3)).asnumpy()
    theirs = F.dropout2d(torch.tensor(ones), 0.25).numpy()
    np.testing.assert_allclose(np.unique(ours), np.unique(theirs), rtol=1e-6)
    assert (ours == 0).mean() == pytest.approx((theirs == 0).mean(), abs=0.04)
