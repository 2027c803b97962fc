"""A second witness: PyTorch computes the same. Skipped where it is not installed."""

import numpy as np
import pytest
from proof import TOLERANCE, difference, numbers, record

from tinymnist import loss, models, ops, optim
from tinymnist.backend import autograd, mx, nd

torch = pytest.importorskip("torch")
F, tnn = torch.nn.functional, torch.nn


def agree(ours, theirs, *inputs):
    """As `same`: values, and all gradients under one random upstream gradient"""
    dtype = inputs[0].dtype.name
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
    y = theirs(*tensors)
    y.backward(torch.tensor(numbers(dtype, tuple(y.shape), seed=1)))
    for a, b in zip(record(ours, inputs, None, {}), [y.detach(), *(x.grad for x in tensors)]):
        assert difference(a, b.numpy()) <= TOLERANCE[dtype]


CONVOLUTIONS = [  # x, weight, options here, and there
    ((2, 3, 9, 8), (4, 3, 3, 3), {}, {}),
    ((1, 1, 28, 28), (20, 1, 5, 5), {}, {}),
    ((2, 3, 9, 8), (4, 3, 2, 5), {"stride": 2}, {"stride": 2}),
    ((2, 3, 9, 8), (4, 3, 3, 2), {"stride": (3, 1), "pad": (1, 2)}, {"stride": (3, 1), "padding": (1, 2)}),
    ((2, 3, 9, 8), (4, 3, 3, 3), {"dilate": (2, 3)}, {"dilation": (2, 3)}),
    ((2, 3, 9, 8), (4, 3, 3, 2), {"stride": 2, "pad": 3, "dilate": 3}, {"stride": 2, "padding": 3, "dilation": 3}),
]


@pytest.mark.parametrize("x, weight, how, torchs", CONVOLUTIONS)
def test_conv2d(x, weight, how, torchs, dtype):
    inputs = numbers(dtype, x, weight, weight[:1])
    agree(lambda *i: ops.conv2d(*i, **how), lambda *i: F.conv2d(*i, **torchs), *inputs)


POOLINGS = [
    ((2, 3, 8, 8), 2, {}, {}),
    ((2, 3, 9, 8), (3, 2), {}, {}),
    ((2, 3, 9, 8), 3, {"stride": 1}, {"stride": 1}),
    ((2, 3, 9, 8), 3, {"stride": (2, 3), "pad": 1}, {"stride": (2, 3), "padding": 1}),
    ((2, 3, 9, 8), 2, {"stride": 4}, {"stride": 4}),
]


@pytest.mark.parametrize("x, kernel, how, torchs", POOLINGS)
def test_pooling(x, kernel, how, torchs, dtype):
    x = numbers(dtype, x)
    agree(lambda x: ops.max_pool2d(x, kernel, **how), lambda x: F.max_pool2d(x, kernel, **torchs), x)
    agree(lambda x: ops.max_pool2d(x, kernel, **how), lambda x: F.max_pool2d(x, kernel, **torchs), np.round(x))
    agree(lambda x: ops.avg_pool2d(x, kernel, **how), lambda x: F.avg_pool2d(x, kernel, **torchs), x)


def test_dense(dtype):
    agree(ops.dense, F.linear, *numbers(dtype, (5, 7), (3, 7), (3,)))
    agree(ops.dense, F.linear, *numbers(dtype, (5, 7), (3, 7)))


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
def test_activations(name, dtype):
    x = 5 * numbers(dtype, (6, 7))
    x[0] = 0
    agree(getattr(ops, name), getattr(torch, name), x)


@pytest.mark.parametrize("scale", [1, 30, 1e4])
def test_loss(scale, dtype):
    logits, labels = (scale * numbers(dtype, (6, 10))).astype(dtype), np.arange(6)
    agree(loss.log_softmax, lambda z: F.log_softmax(z, 1), logits)
    agree(
        lambda z: loss.softmax_cross_entropy(z, nd.array(labels)),
        lambda z: F.cross_entropy(z, torch.tensor(labels)).reshape(1),
        logits,
    )


@pytest.mark.parametrize(
    "rule, hyper, theirs",
    [
        ("sgd", {"lr": 0.1}, lambda w: torch.optim.SGD([w], lr=0.1)),
        ("momentum", {"lr": 0.1}, lambda w: torch.optim.SGD([w], lr=0.1, momentum=0.9)),
        ("momentum", {"lr": 0.1, "momentum": 0.99}, lambda w: torch.optim.SGD([w], lr=0.1, momentum=0.99)),
        ("adadelta", {}, lambda w: torch.optim.Adadelta([w], lr=1, rho=0.9, eps=1e-5)),
        ("adadelta", {"rho": 0.99, "eps": 1e-3}, lambda w: torch.optim.Adadelta([w], lr=1, rho=0.99, eps=1e-3)),
        # eps stands outside the root there; so small, it makes no difference on either side
        ("adagrad", {"lr": 0.1, "eps": 1e-30}, lambda w: torch.optim.Adagrad([w], lr=0.1, eps=1e-30)),
        ("rmsprop", {"lr": 0.1, "eps": 1e-30}, lambda w: torch.optim.RMSprop([w], lr=0.1, alpha=0.9, eps=1e-30)),
    ],
)
def test_rules(rule, hyper, theirs):
    w, *gradients = numbers("float64", *[(50,)] * 41)
    ours, twin = nd.array(w, dtype="float64"), torch.tensor(w, requires_grad=True)
    rule, optimizer = optim.Optimizer(rule, **hyper), theirs(twin)
    for g in gradients:
        rule.step(ours, nd.array(g, dtype="float64"))
        twin.grad = torch.tensor(g)
        optimizer.step()
        assert difference(ours.asnumpy(), twin.detach().numpy()) <= 1e-12


def torch_lenet():
    """As published, with the activation before the pooling"""
    return tnn.Sequential(
        *(tnn.Conv2d(1, 20, 5), tnn.Tanh(), tnn.MaxPool2d(2), tnn.Conv2d(20, 50, 5), tnn.Tanh(), tnn.MaxPool2d(2)),
        *(tnn.Flatten(), tnn.Linear(800, 500), tnn.Tanh(), tnn.Linear(500, 10)),
    )


def torch_dropout_cnn():
    return tnn.Sequential(
        *(tnn.Conv2d(1, 10, 5), tnn.MaxPool2d(2), tnn.ReLU()),
        *(tnn.Conv2d(10, 20, 5), tnn.Dropout2d(0.5), tnn.MaxPool2d(2), tnn.ReLU()),
        *(tnn.Flatten(), tnn.Linear(320, 50), tnn.ReLU(), tnn.Dropout(0.5), tnn.Linear(50, 10)),
    ).eval()


TWINS = [
    (models.softmax_regression, lambda: tnn.Sequential(tnn.Flatten(), tnn.Linear(784, 10))),
    (
        models.mlp,
        lambda: tnn.Sequential(
            *(tnn.Flatten(), tnn.Linear(784, 128), tnn.ReLU(), tnn.Linear(128, 64), tnn.ReLU(), tnn.Linear(64, 10))
        ),
    ),
    (models.lenet, torch_lenet),
    (models.dropout_cnn, torch_dropout_cnn),
]


@pytest.mark.parametrize("make, theirs", TWINS)
def test_models_from_images_to_the_gradient_of_every_weight(make, theirs, dtype):
    x, labels = numbers(dtype, (8, 1, 28, 28)), np.arange(8)
    ours, twin = make().initialize(2, dtype=dtype), theirs().to(getattr(torch, dtype))
    for mine, their in zip(ours.parameters.values(), twin.parameters()):
        their.data = torch.tensor(mine.asnumpy())
    with autograd.record(train_mode=False):
        logits = ours(nd.array(x, dtype=dtype))
        value = loss.softmax_cross_entropy(logits, nd.array(labels))
    value.backward()
    expected = twin(torch.tensor(x))
    F.cross_entropy(expected, torch.tensor(labels)).backward()
    gradients = np.concatenate([p.grad.numpy().ravel() for p in twin.parameters()])
    assert difference(logits.asnumpy(), expected.detach().numpy()) <= TOLERANCE[dtype]
    assert difference(ours.gradients.asnumpy(), gradients) <= TOLERANCE[dtype]


def test_the_same_share_is_dropped():
    ones = np.ones((100, 50, 4, 4), "float32")
    mx.random.seed(1)
    with autograd.train_mode():
        ours = ops.dropout(nd.array(ones), 0.25, axes=(2, 3)).asnumpy()
    theirs = F.dropout2d(torch.tensor(ones), 0.25).numpy()
    np.testing.assert_allclose(np.unique(ours), np.unique(theirs), rtol=1e-6)
    assert (ours == 0).mean() == pytest.approx((theirs == 0).mean(), abs=0.04)
