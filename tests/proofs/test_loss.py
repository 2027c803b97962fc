"""The loss equals the built-in one, also for huge logits, rows of very different scale, and a single class.

Log-probabilities may cancel to 0, and those of the built-in are off by some 1e-6 in float32. So differences are
measured in units of the largest element, or of 1 (`floor`).
"""

import functools

import numpy as np
import pytest
from proof import numbers, record, same

from tinymnist import loss
from tinymnist.backend import mx, nd

LOGITS = {
    "ordinary": numbers,
    "zero": lambda dtype, shape: np.zeros(shape, dtype),
    "+-1e4": lambda dtype, shape: 1e4 * np.sign(numbers(dtype, shape)),
    "all about 1e4": lambda dtype, shape: (1e4 + np.round(numbers(dtype, shape))).astype(dtype),
    "rows of every scale": lambda dtype, shape: (
        numbers(dtype, shape) * np.logspace(-3, 4, shape[0], dtype=dtype)[:, None]
    ),
}
each_logits = pytest.mark.parametrize("logits", LOGITS.values(), ids=LOGITS)
each_shape = pytest.mark.parametrize("shape", [(1, 1), (1, 10), (3, 1), (2, 2), (64, 10), (5, 1000)])
each_label_dtype = pytest.mark.parametrize("label_dtype", ["float32", "int32", "uint8", "int64"])


def draw_labels(n, classes):
    return np.random.default_rng(0).integers(0, min(classes, 256), n)


@each_shape
@each_logits
@pytest.mark.parametrize("name", ["log_softmax", "softmax"])
def test_softmax_equals_the_built_in(name, logits, shape, dtype, device):
    same(getattr(loss, name), getattr(nd, name), logits(dtype, shape), device=device, floor=1)


@each_shape
@each_logits
@each_label_dtype
def test_softmax_cross_entropy_equals_the_mean_of_gluons(label_dtype, logits, shape, dtype, device):
    labels = nd.array(draw_labels(*shape), device, label_dtype)
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
    logits = nd.array(logits, device)
    probabilities = loss.softmax(logits)
    mean = loss.softmax_cross_entropy(logits, nd.zeros(len(logits), device))
    assert all(np.isfinite(values.asnumpy()).all() for values in (probabilities, loss.log_softmax(logits), mean))
    np.testing.assert_allclose(probabilities.sum(axis=1).asnumpy(), 1, rtol=1e-6)


@pytest.mark.parametrize("n, classes", [(1, 2), (3, 10), (7, 10)])
def test_the_loss_of_equal_logits_is_the_logarithm_of_the_number_of_classes(n, classes, device):
    value = loss.softmax_cross_entropy(nd.ones((n, classes), device), nd.array(range(n), device))
    assert value.shape == (1,)
    assert value.asscalar() == pytest.approx(np.log(classes), rel=1e-6)


@each_shape
@each_label_dtype
def test_accuracy_equals_the_built_in(shape, label_dtype, dtype, device):
    logits = nd.array(np.round(numbers(dtype, shape)), device, dtype)
    labels, metric = nd.array(draw_labels(*shape), device, label_dtype), mx.metric.Accuracy()
    metric.update(labels, logits)
    correct, share = loss.is_correct(logits, labels), loss.accuracy(logits, labels)
    assert (correct.shape, share.shape) == (shape[:1], (1,))
    assert correct.mean().asscalar() == share.asscalar() == pytest.approx(metric.get()[1], rel=1e-6)


def test_accuracy_by_hand(device):
    logits = nd.array([[1, 2, 0], [3, 0, 0], [5, 5, 5], [0, 0, 1]], device)
    assert loss.is_correct(logits, nd.array([1, 0, 0, 1], device)).asnumpy().tolist() == [1, 1, 1, 0]
    assert loss.is_correct(logits, nd.array([0, 1, 2, 0], device)).asnumpy().tolist() == [0, 0, 0, 0]
