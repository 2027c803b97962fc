"""The operations of a network, as functions of arrays.

Images are (N, C, H, W), as in Gluon, MXNet's library of ready-made parts. With layout="CHWN" they are (C, H, W, N), as
inside a network: see windows.py.
"""

import functools

import numpy as np

from tinymnist import windows
from tinymnist.backend import autograd, nd
from tinymnist.windows import constant, count_windows, index_table, pair


def in_either_layout(op):
    """Return `op`, which works on (C, H, W, N), as a function of (N, C, H, W), unless layout="CHWN"."""

    @functools.wraps(op)
    def wrapper(x, *inputs, layout="NCHW", **options):
        if layout not in ("NCHW", "CHWN") or x.ndim != 4:
            raise ValueError(f"images {x.shape} of layout {layout!r}; expected four axes, in the order NCHW or CHWN")
        if layout == "CHWN":
            return op(x, *inputs, **options)
        return windows.to_nchw(op(windows.to_chwn(x), *inputs, **options))

    return wrapper


def dense(x, weight, bias=None):
    """y = x Wᵀ + b.   x (N, I), or (N, …) with I numbers per example; weight (O, I); bias (O,). Returns (N, O).

    Raises ValueError for a weight or bias of another size.
    """
    x = x if x.ndim == 2 else flatten(x)
    check_parameters(x.shape[1], weight, bias)
    y = nd.dot(x, weight, transpose_b=True)
    return y if bias is None else add_bias(y, bias)


def check_parameters(inputs, weight, bias):
    """Raise ValueError unless the weight is (O, I, …), where I = inputs, and the bias (O,)."""
    if weight.shape[1] != inputs or (bias is not None and bias.shape != weight.shape[:1]):
        biases = "no bias" if bias is None else f"a bias {bias.shape}"
        raise ValueError(f"a weight {weight.shape} and {biases} do not suit each other and {inputs} inputs")


def add_bias(y, bias):
    """y[n,o] + b[o]   y (N, O), bias (O,)"""
    if len(bias) > 32:
        # Only for speed: ones (N, 1) times b (1, O) is b in each of N rows; its gradient is faster if b is long.
        bias = nd.dot(constant(nd.ones, (len(y), 1), y.context, y.dtype), bias.expand_dims(0))
    return y + bias


@in_either_layout
def conv2d(x, weight, bias=None, *, stride=1, pad=0, dilate=1):
    """y[n,f,p,q] = b[f] + Σ_cij W[f,c,i,j] x[n, c, p · stride + i · dilate − pad, q · stride + j · dilate − pad]

    i, j run over the pixels of a window, c over the channels; p, q over the windows. x is 0 outside the image.
    x (N, C, H, W), weight (F, C, KH, KW), bias (F,). Returns (N, F, OH, OW), see windows.count_windows.
    stride, pad and dilate are numbers or pairs (rows, columns). Raises ValueError if no window fits, or for a weight or
    bias of another size.

    nd.take lays all windows out as columns of one matrix; windows.index_table has an example. Then the convolution is
    one product (im2col; K. Chellapilla, S. Puri, P. Simard 2006). The bias is one more column of the weights; it
    multiplies a row of ones.
    """
    filters, _channels, *kernel = weight.shape
    *size, n = x.shape  # here x is (C, H, W, N): in_either_layout has transposed it
    stride, pad, dilate = map(pair, (stride, pad, dilate))
    check_parameters(size[0], weight, bias)
    table = constant(index_table, tuple(size), tuple(kernel), stride, pad, dilate, x.context)
    x = windows.pad_images(x, pad, 0.0)
    if bias is None:
        bias = constant(nd.zeros, (filters,), x.context, x.dtype)
    ones = constant(nd.ones, (1, n), x.context, x.dtype)
    pixels = nd.concat(x.reshape((-1, n)), ones, dim=0)  # row k: pixel k of all padded images; the last row: ones
    columns = nd.take(pixels, table)  # each number in the table becomes N values: (C · KH · KW + 1, OH, OW, N)
    matrix = nd.concat(weight.reshape((filters, -1)), bias.reshape((filters, 1)), dim=1)  # (F, C · KH · KW + 1)
    return nd.dot(matrix, columns.reshape((len(table), -1))).reshape((filters, *table.shape[1:], n))


@in_either_layout
def max_pool2d(x, kernel, *, stride=None, pad=0):
    """y[n,c,p,q] = max over i < KH, j < KW of x[n, c, p · stride + i − pad, q · stride + j − pad]; x is −∞ outside.

    x (N, C, H, W). Returns (N, C, OH, OW), OH = ⌊(H + 2 pad − KH) / stride⌋ + 1; by default, stride is the kernel.
    Of equal maxima, the first in the window gets the gradient. Raises ValueError if no window fits, or pad ≥ kernel.
    """
    smallest = float(np.finfo(x.dtype).min)  # in place of −∞: no finite pixel is smaller
    return reduce_windows(nd.maximum, x, kernel, stride, pad, smallest)


@in_either_layout
def avg_pool2d(x, kernel, *, stride=None, pad=0):
    """y[n,c,p,q] = (1 / (KH KW)) Σ_ij x[n, c, p · stride + i − pad, q · stride + j − pad]; x is 0 outside.

    Shapes, default stride and errors are those of max_pool2d.
    """
    rows, columns = pair(kernel)
    return reduce_windows(nd.add, x, kernel, stride, pad, 0.0) * (1 / (rows * columns))


def reduce_windows(combine, x, kernel, stride, pad, outside):
    """Combine the pixels of each window of x (C, H, W, N) into one number, first along W, then along H."""
    kernel, stride, pad = windows.pooling_pairs(kernel, stride, pad)
    oh, ow = count_windows(x.shape[1:3], kernel, stride, pad)
    x = windows.pad_images(x, pad, outside)
    x = functools.reduce(combine, windows.slice_windows(x, 2, ow, kernel[1], stride[1]))
    return functools.reduce(combine, windows.slice_windows(x, 1, oh, kernel[0], stride[0]))


def relu(x):
    """max(x, 0), with gradient 0 at 0.   V. Nair, G. Hinton 2010"""
    return nd.relu(x)


def tanh(x):
    """(eˣ − e⁻ˣ) / (eˣ + e⁻ˣ) = 2 σ(2x) − 1

    In float32 this is about twice as fast as MXNet's tanh, and the absolute error is at most 2e-7.
    """
    return 2 * nd.sigmoid(2 * x) - 1


def sigmoid(x):
    """1 / (1 + e⁻ˣ)"""
    return nd.sigmoid(x)


def dropout(x, rate, *, axes=()):
    """x · [u ≥ rate] / (1 − rate) with new u ~ Uniform(0, 1) while training; x otherwise.

    [u ≥ rate] is 1 where that is true, else 0. All elements along `axes` share one u: axes=(2, 3) drops whole channels
    of (N, C, H, W). Raises ValueError for a rate outside [0, 1). N. Srivastava et al. 2014.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"a dropout rate lies in [0, 1), not {rate}")
    if rate == 0 or not autograd.is_training():
        return x
    sample = x
    for axis in axes:
        sample = nd.slice_axis(sample, axis=axis, begin=0, end=1)  # of size 1 along `axes`: one u for all
    mask = (nd.random.uniform_like(sample) >= rate) * (1 / (1 - rate))
    # Broadcast the mask here: x * mask would broadcast it too, but also compute a gradient for it, in vain.
    return x * nd.stop_gradient(nd.broadcast_like(mask, x))


def flatten(x):
    """Each example's numbers in one row.   (N, C, H, W) -> (N, C · H · W)"""
    return x.reshape((len(x), -1))
