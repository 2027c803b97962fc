"""The loss equals the built-in one, also for huge logits, rows of very different scale, and a single class.

Log-probabilities may cancel to 0, and those of the built-in are off by some 1e-6 in float32. So differences are
measured in units of the largest element, or of 1 (`floor`).
"""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from proof import numbers, record, same

from tinymnist import loss
from tinymnist.backend import mx, nd

SHAPES = [(1, 1), (1, 10), (3, 1), (2, 2), (64, 10), (5, 1000)]


def scale_rows(dtype, shape):
    """Row 0 of size 1e-3, the last of size 1e4"""
    return numbers(dtype, shape) * np.logspace(-3, 4, shape[0], dtype=dtype)[:, None]


LOGITS = {
    "ordinary": numbers,
    "zero": lambda dtype, shape: np.zeros(shape, dtype),
    "+-1e4": lambda dtype, shape: 1e4 * np.sign(numbers(dtype, shape)),
    "all about 1e4": lambda dtype, shape: (1e4 + np.round(numbers(dtype, shape))).astype(dtype),
    "all about -1e4": lambda dtype, shape: (-1e4 + np.round(numbers(dtype, shape))).astype(dtype),
    "every scale": scale_rows,
    "ties": lambda dtype, shape: np.round(numbers(dtype, shape)),
}
each_logits = pytest.mark.parametrize("logits", LOGITS.values(), ids=LOGITS)
each_shape = pytest.mark.parametrize("shape", SHAPES)


def draw_labels(n, classes):
    return np.random.default_rng(0).integers(0, classes, n)


@each_shape
@each_logits
@pytest.mark.parametrize("name", ["log_softmax", "softmax"])
def test_softmax_equals_the_built_in(name, logits, shape, dtype, device):
    same(getattr(loss, name), getattr(nd, name), logits(dtype, shape), device=device, floor=1)


@each_shape
@each_logits
@pytest.mark.parametrize("label_dtype", ["float32", "int32", "uint8"])
def test_softmax_cross_entropy_equals_the_mean_of_gluons(label_dtype, logits, shape, dtype, device):
    labels = nd.array(np.minimum(draw_labels(*shape), 255), device, label_dtype)
    gluon = mx.gluon.loss.SoftmaxCrossEntropyLoss()

    @functools.wraps(loss.softmax_cross_entropy)
    def ours(logits):
        return loss.softmax_cross_entropy(logits, labels)

    def builtin(logits):
        return gluon(logits, labels.astype(dtype)).mean()

    same(ours, builtin, logits(dtype, shape), device=device, floor=1)


def test_the_gradient_is_softmax_minus_one_hot(dtype, device):
    logits, labels = numbers(dtype, (6, 4)), draw_labels(6, 4)
    _, upstream = record(lambda u: u, [np.ones(1, dtype)], device, {})  # the random gradient from above, of shape (1,)
    _, gradient = record(lambda z: loss.softmax_cross_entropy(z, nd.array(labels, device)), [logits], device, {})
    p = np.exp(logits.astype("float64"))
    p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(gradient, upstream * (p - np.eye(4)[labels]) / 6, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("logits", [[[0, 1e4]], [[1e38, -1e38]], [[-1e4, -2e4]], [[80, 0], [-1e4, 1e4]]])
def test_nothing_overflows(logits, device):
    values = [
        loss.log_softmax(nd.array(logits, device)),
        loss.softmax(nd.array(logits, device)),
        loss.softmax_cross_entropy(nd.array(logits, device), nd.zeros(len(logits), device)),
    ]
    assert all(np.isfinite(v.asnumpy()).all() for v in values)
    np.testing.assert_allclose(values[1].sum(axis=1).asnumpy(), 1, rtol=1e-6)


def test_the_loss_by_hand(device):
    """Equal logits over K classes: log K, whatever the label and however large the batch."""
    for n, classes in [(1, 2), (3, 10), (7, 10)]:
        value = loss.softmax_cross_entropy(nd.ones((n, classes), device), nd.array(range(n), device))
        assert value.shape == (1,)
        assert value.asscalar() == pytest.approx(np.log(classes), rel=1e-6)


@pytest.mark.parametrize("label_dtype", ["float32", "int32", "uint8", "int64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_accuracy_equals_the_built_in(shape, label_dtype, dtype, device):
    logits, labels = np.round(numbers(dtype, shape)), np.minimum(draw_labels(*shape), 255).astype(label_dtype)
    metric = mx.metric.Accuracy()
    metric.update(nd.array(labels, device, label_dtype), nd.array(logits, device, dtype))
    ours = loss.is_correct(nd.array(logits, device, dtype), nd.array(labels, device, label_dtype))
    assert ours.shape == shape[:1]
    assert ours.asnumpy().mean() == pytest.approx(metric.get()[1], rel=1e-6)
    share = loss.accuracy(nd.array(logits, device, dtype), nd.array(labels, device, label_dtype))
    assert share.shape == (1,) and share.asscalar() == pytest.approx(metric.get()[1], rel=1e-6)


def test_accuracy_by_hand(device):
    logits = nd.array([[1, 2, 0], [3, 0, 0], [5, 5, 5], [0, 0, 1]], device)
    first_of_equals = loss.is_correct(logits, nd.array([1, 0, 0, 1], device))
    assert first_of_equals.asnumpy().tolist() == [1, 1, 1, 0]
    assert loss.is_correct(logits, nd.array([0, 1, 2, 0], device)).asnumpy().tolist() == [0, 0, 0, 0]


@given(st.integers(1, 20), st.integers(1, 20), st.floats(1e-3, 1e4), st.integers(0, 1000))
def test_any_logits(n, classes, scale, seed):
    logits = scale * numbers("float64", (n, classes), seed=seed)
    same(loss.log_softmax, nd.log_softmax, logits, floor=1)
    same(loss.softmax, nd.softmax, logits, floor=1)
