"""What autograd does, by hand: the gradient of every operation, of the loss, and of whole networks, in numpy.

A network turns an input into a loss L, a single number. dx stands for ∂L/∂x: it has the shape of x, and says how fast L
grows with each element of x. To find the gradients of y = f(x, w, …), one needs only dy and the inputs of f:

    dx = Σ_k dy[k] ∂y[k]/∂x        dw = Σ_k dy[k] ∂y[k]/∂w        k runs over all elements of y: the chain rule

So every operation has a function here that takes dy and the inputs, and returns the tuple dx, dw, …. The docstring
has the operation and its gradient, and the body is the gradient in numpy. Then `forward` writes down what each
operation of a network was given, as `autograd.record()` does, and `backward` goes back from the last one to the first,
as `loss.backward()` does. That is all. [true] = 1, [false] = 0.

The tests compare each function with autograd in float64. Training never uses this file.
"""

import ast
import functools
import inspect

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from proof import DIFFERENCES, difference, numbers, record
from test_loss import draw_labels, each_logits, each_shape
from test_ops import (
    CONVOLUTIONS,
    DENSES,
    IMAGES,
    POOLINGS,
    each_axes,
    each_layout,
    each_rate,
    each_scale,
    many_ties,
    pair,
)

import tinymnist as tm
from tinymnist import loss, ops
from tinymnist.backend import autograd, mx, nd

einsum = functools.partial(np.einsum, optimize=True)  # the same sums, faster

# 1. A matrix product, and a sum.


def dense(dy, x, weight, bias=None):
    """y[n,o] = Σ_i x[n,i] W[o,i] + b[o]

    dx[n,i] = Σ_o dy[n,o] W[o,i]        dW[o,i] = Σ_n dy[n,o] x[n,i]        db[o] = Σ_n dy[n,o]
    """
    rows = x.reshape(len(x), -1)
    return (dy @ weight).reshape(x.shape), dy.T @ rows, dy.sum(0)


def add_bias(dy, x, bias):
    """y[n,o] = x[n,o] + b[o].   dx = dy, because ∂y/∂x = 1;  db[o] = Σ_n dy[n,o], because b[o] is used N times."""
    return dy, dy.sum(0)


# 2. Functions of single elements: y = f(x), so dx = dy f'(x).


def relu(dy, x):
    """y = max(x, 0).   dx = dy [x > 0]: the gradient passes, or it does not."""
    return (dy * (x > 0),)


def tanh(dy, x):
    """y = tanh x.   dx = dy (1 − y²): at most dy, and almost 0 where |x| is large."""
    return (dy * (1 - np.tanh(x) ** 2),)


def sigmoid(dy, x):
    """y = 1 / (1 + e⁻ˣ).   dx = dy y (1 − y): at most dy / 4"""
    y = (1 + np.tanh(x / 2)) / 2  # the same function, and nothing overflows
    return (dy * y * (1 - y),)


def dropout(dy, x, rate, u):
    """y = x [u ≥ rate] / (1 − rate).   dx = dy [u ≥ rate] / (1 − rate): the same mask"""
    return (dy * (u >= rate) / (1 - rate),)


def flatten(dy, x):
    """y has the elements of x in another shape.   dx has those of dy in the shape of x."""
    return (dy.reshape(x.shape),)


# 3. Windows. Each is copied out of the image; on the way back, each pixel collects from all windows that it is in.


def take_windows(x, kernel, stride, pad, dilate=1, outside=0):
    """X[n,c,p,q,i,j] = x[n, c, p · stride + i · dilate − pad, q · stride + j · dilate − pad]

    This is pixel (i, j) of window (p, q). Outside the image, x is `outside`.
    """
    (kh, kw), (rows, columns), (sh, sw), (dh, dw) = map(pair, (kernel, pad, stride, dilate))
    x = np.pad(x, [(0, 0), (0, 0), (rows, rows), (columns, columns)], constant_values=outside)
    every_window = sliding_window_view(x, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), (2, 3))
    return every_window[:, :, ::sh, ::sw, ::dh, ::dw]


def collect_windows(dX, x, *where):
    """The gradient of take_windows: dx of a pixel is the sum of dX over all places to which it was copied."""
    pixel_numbers = 1 + np.arange(x.size).reshape(x.shape)  # 0 is outside the image
    sums = np.bincount(take_windows(pixel_numbers, *where).ravel(), dX.ravel(), x.size + 1)
    return sums[1:].reshape(x.shape)


def conv2d(dy, x, weight, bias=None, *, stride=1, pad=0, dilate=1):
    """y[n,f,p,q] = b[f] + Σ_cij W[f,c,i,j] X[n,c,p,q,i,j], where X are the windows of x

    dX[n,c,p,q,i,j] = Σ_f dy[n,f,p,q] W[f,c,i,j]        dW[f,c,i,j] = Σ_npq dy[n,f,p,q] X[n,c,p,q,i,j]
    db[f] = Σ_npq dy[n,f,p,q]
    """
    where = weight.shape[2:], stride, pad, dilate
    dX = einsum("nfpq,fcij->ncpqij", dy, weight)
    dweight = einsum("nfpq,ncpqij->fcij", dy, take_windows(x, *where))
    return collect_windows(dX, x, *where), dweight, dy.sum((0, 2, 3))


def max_pool2d(dy, x, kernel, *, stride=None, pad=0):
    """y[n,c,p,q] = max_ij X[n,c,p,q,i,j].   dX[…,i,j] = dy [(i, j) is where the maximum is; if several, the first]"""
    where = kernel, kernel if stride is None else stride, pad
    X = take_windows(x, *where, outside=-np.inf)
    first = X.reshape(*dy.shape, -1).argmax(-1)  # a window has the places 0, 1, …, row by row
    dX = dy[..., None] * (first[..., None] == np.arange(X[0, 0, 0, 0].size))
    return (collect_windows(dX, x, *where),)


def avg_pool2d(dy, x, kernel, *, stride=None, pad=0):
    """y[n,c,p,q] = Σ_ij X[n,c,p,q,i,j] / (KH KW).   dX[…,i,j] = dy / (KH KW): every pixel gets the same share."""
    where = kernel, kernel if stride is None else stride, pad
    share = np.full(pair(kernel), 1 / np.prod(pair(kernel)))
    return (collect_windows(dy[..., None, None] * share, x, *where),)


# 4. The loss.


def softmax_cross_entropy(dL, logits, labels):
    """L = (1/N) Σ_n (log Σ_k e^z[n,k] − z[n, labels[n]])

    dz[n,k] = dL (p[n,k] − [k = labels[n]]) / N,  p[n,k] = e^z[n,k] / Σ_j e^z[n,j]: what was guessed minus what is true
    """
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return (dL * (p - (np.arange(p.shape[1]) == labels[:, None])) / len(p),)


# 5. A whole network: a list of operations and their options. Number i has the parameters "i.weight" and "i.bias".

GRADIENTS = {
    f.__name__: f for f in (dense, add_bias, relu, tanh, sigmoid, dropout, flatten, conv2d, max_pool2d, avg_pool2d)
}
MLP = [("dense", {}), ("relu", {}), ("dense", {}), ("relu", {}), ("dense", {})]
CONV_POOL_TANH = [("conv2d", {}), ("max_pool2d", {"kernel": 2}), ("tanh", {})]
LENET = [*CONV_POOL_TANH, *CONV_POOL_TANH, ("flatten", {}), ("dense", {}), ("tanh", {}), ("dense", {})]


def forward(network, parameters, x):
    """The logits, and the tape: what each operation was given. autograd.record() writes such a tape."""
    tape = []
    for number, (name, options) in enumerate(network):
        inputs = [x, *(value for key, value in parameters.items() if key.startswith(f"{number}."))]
        tape.append((name, inputs, options))
        x = getattr(ops, name)(*(nd.array(value, dtype="float64") for value in inputs), **options).asnumpy()
    return x, tape


def backward(tape, dy):
    """The gradients of all parameters, from the tape and the gradient of the logits. The dx of an operation is the dy
    of the one before it."""
    gradients = []
    for name, inputs, options in reversed(tape):
        dy, *others = GRADIENTS[name](dy, *inputs, **options)
        gradients = others + gradients
    return gradients


# All of this is what autograd computes.


def equal(name, f, gradient, *inputs, device, floor=0.0, **options):
    """The gradients of f by all its inputs, under a random dy: autograd's are those by hand."""
    y, *found = record(f, inputs, device, options)
    expected = gradient(numbers("float64", y.shape, seed=1), *inputs, **options)
    assert len(found) <= len(expected)  # no bias: one less
    worst = max(difference(a, b, floor) for a, b in zip(found, expected))
    DIFFERENCES[f"back: {name}", "float64"].append(worst)
    assert worst <= 1e-12


@pytest.mark.parametrize("x, units", DENSES)
def test_dense(x, units, device):
    x, weight, bias, y = numbers("float64", x, (units, int(np.prod(x[1:]))), (units,), (len(np.empty(x)), units))
    equal("dense", ops.dense, dense, x, weight, bias, device=device)
    equal("dense", ops.dense, dense, x, weight, device=device)
    equal("add_bias", ops.add_bias, add_bias, y, bias, device=device)


@each_layout
@pytest.mark.parametrize("x, filters, kernel, stride, pad, dilate", CONVOLUTIONS)
def test_conv2d(x, filters, kernel, stride, pad, dilate, layout, device):
    x, weight, bias = numbers("float64", x, (filters, x[1], *pair(kernel)), (filters,))
    how = {"stride": stride, "pad": pad, "dilate": dilate, "device": device}
    equal("conv2d", layout(ops.conv2d), conv2d, x, weight, bias, **how)
    equal("conv2d", layout(ops.conv2d), conv2d, x, weight, **how)


@each_layout
@pytest.mark.parametrize("x, kernel, stride, pad", POOLINGS)
@pytest.mark.parametrize("op, gradient", [(ops.max_pool2d, max_pool2d), (ops.avg_pool2d, avg_pool2d)])
@pytest.mark.parametrize("draw", [numbers, many_ties])
def test_pooling(op, gradient, draw, x, kernel, stride, pad, layout, device):
    how = {"kernel": kernel, "stride": stride, "pad": pad, "device": device}
    equal(op.__name__, layout(op), gradient, draw("float64", x), **how)


@each_scale
@pytest.mark.parametrize("gradient", [relu, tanh, sigmoid])
def test_activations(gradient, scale, device):
    x = scale * numbers("float64", (2, 3, 4, 5))
    x[..., -1] = 0  # where relu has a corner
    equal(gradient.__name__, getattr(ops, gradient.__name__), gradient, x, device=device)


@pytest.mark.parametrize("x", IMAGES)
def test_flatten(x, device):
    equal("flatten", ops.flatten, flatten, numbers("float64", x), device=device)


@each_rate
@each_axes
def test_dropout(rate, axes, device):
    def with_seed(x):
        mx.random.seed(3)
        return ops.dropout(x, rate, axes=axes)

    shape = (6, 7, 8, 9)
    mx.random.seed(3)
    one = [1 if axis in axes else n for axis, n in enumerate(shape)]
    u = nd.random.uniform_like(nd.zeros(one, device, "float64")).asnumpy()
    equal("dropout", with_seed, lambda dy, x: dropout(dy, x, rate, u), numbers("float64", shape), device=device)


@each_shape
@each_logits
def test_softmax_cross_entropy(logits, shape, device):
    labels = draw_labels(*shape)

    def ours(z):
        return loss.softmax_cross_entropy(z, nd.array(labels, device))

    def by_hand(dy, z):
        return softmax_cross_entropy(dy, z, labels)

    equal("softmax_cross_entropy", ours, by_hand, logits("float64", shape), device=device, floor=1)


@pytest.mark.parametrize("make, network", [(tm.mlp, MLP), (tm.lenet, LENET)])
def test_fifty_steps_of_training(make, network):
    """Two copies of a network take 50 steps of SGD, one by autograd and one by hand. Gradients and losses are equal."""
    model, rule = make().initialize(0, dtype="float64"), tm.Optimizer("sgd", lr=0.1)
    parameters = {name: value.asnumpy() for name, value in model.parameters.items()}
    losses = []  # pairs: autograd's, by hand
    for images, labels in tm.Batches(tm.load("digits").train, 10, mx.cpu()).epoch(np.arange(500)):
        with autograd.record():
            autograds = loss.softmax_cross_entropy(model(images), labels)
        autograds.backward()
        rule.step(model.weights, model.gradients)

        labels = labels.asnumpy()
        logits, tape = forward(network, parameters, images.asnumpy() / 255)
        (dlogits,) = softmax_cross_entropy(1, logits, labels)
        gradients = backward(tape, dlogits)
        for value, gradient in zip(parameters.values(), gradients):
            value -= 0.1 * gradient  # w ← w − lr g

        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        losses.append((autograds.asscalar(), -log_p[np.arange(10), labels].mean()))
        worst = difference(model.gradients.asnumpy(), np.concatenate([g.ravel() for g in gradients]))
        DIFFERENCES[f"back: {model.name}", "float64"].append(worst)
        assert worst <= 1e-12
    assert len(losses) == 50 and losses[-1][0] < losses[0][0] / 2  # it has learned something
    assert difference(*np.array(losses).T) <= 1e-12


def test_every_operation_is_here_in_at_most_five_lines():
    public = {name for name, f in vars(ops).items() if inspect.isfunction(f) and f.__module__ == ops.__name__}
    helpers = {"in_either_layout", "check_parameters", "reduce_windows"}
    assert public - helpers == GRADIENTS.keys()
    for f in (*GRADIENTS.values(), softmax_cross_entropy, backward):
        docstring, *body = ast.parse(inspect.getsource(f)).body[0].body
        assert body[-1].end_lineno - docstring.end_lineno <= 5, f.__name__
