"""The operations of a network, as pure functions of arrays.

Images are (N, C, H, W), as in Gluon. With layout="CHWN" they are (C, H, W, N), as inside a network: see windows.py.
"""

import functools

import numpy as np

from tinymnist import windows
from tinymnist.backend import autograd, nd
from tinymnist.windows import constant, index_table, pair


def accept_both_layouts(op):
    """`op`, which takes and returns (C, H, W, N), with the choice of a layout. Raises ValueError for any other."""

    @functools.wraps(op)
    def choose(x, *inputs, layout="NCHW", **options):
        if layout == "CHWN":
            return op(x, *inputs, **options)
        if layout != "NCHW":
            raise ValueError(f"there is no layout {layout!r}; the layouts are NCHW and CHWN")
        return windows.to_nchw(op(windows.to_chwn(x), *inputs, **options))

    return choose


def dense(x, weight, bias=None):
    """y = x Wᵀ + b.   x (N, I), or (N, …) with I numbers per example; weight (O, I); bias (O,). Returns (N, O)."""
    y = nd.dot(x if x.ndim == 2 else flatten(x), weight, transpose_b=True)
    return y if bias is None else add_bias(y, bias)


def add_bias(y, bias):
    """y[n,o] + b[o]   y (N, O), bias (O,)"""
    if len(bias) > 32:
        # The product 1 bᵀ of a column of ones and a row has the rows b, b, …, b. Its gradient is a product, too; the
        # gradient of a broadcast is a slow sum, and only cheaper for few units.
        bias = nd.dot(constant(nd.full, (len(y), 1), 1, y.context, y.dtype), bias.expand_dims(0))
    return y + bias


@accept_both_layouts
def conv2d(x, weight, bias=None, *, stride=1, pad=0, dilate=1):
    """y[n,f,p,q] = b[f] + Σ_cij W[f,c,i,j] x[n, c, p · stride + i · dilate − pad, q · stride + j · dilate − pad]

    x (N, C, H, W), 0 outside; weight (F, C, KH, KW); bias (F,). Returns (N, F, OH, OW), see windows.count_windows.
    stride, pad and dilate are numbers or pairs (rows, columns). Raises ValueError if no window fits.

    All windows are laid out as columns of one matrix, and the convolution is one product. A 3×3 image whose pixels are
    numbered 0 … 8 has four windows of 2×2. Each column below is a window; the table of row numbers has these lines:
        pixel (0, 0)   0 1 3 4
        pixel (0, 1)   1 2 4 5
        pixel (1, 0)   3 4 6 7
        pixel (1, 1)   4 5 7 8
    The bias is one more column of the weights; it multiplies a line of ones. K. Chellapilla, S. Puri, P. Simard 2006.
    """
    filters, _, *kernel = weight.shape
    x = windows.pad_images(x, pair(pad), 0.0)
    *image, n = x.shape
    table = constant(index_table, *image, *kernel, *pair(stride), *pair(dilate), x.context)
    if bias is None:
        bias = constant(nd.full, (filters,), 0, x.context, x.dtype)
    pixels = nd.concat(
        x.reshape((-1, n)), constant(nd.full, (1, n), 1, x.context, x.dtype), dim=0
    )  # (C · H · W + 1, N)
    columns = nd.take(pixels, table).reshape((len(table), -1))  # (C · KH · KW + 1, OH · OW · N)
    matrix = nd.concat(weight.reshape((filters, -1)), bias.reshape((filters, 1)), dim=1)
    return nd.dot(matrix, columns).reshape((filters, *table.shape[1:], n))


@accept_both_layouts
def max_pool2d(x, kernel, *, stride=None, pad=0):
    """y[n,c,p,q] = max over i < KH, j < KW of x[n, c, p · stride + i − pad, q · stride + j − pad]; x is −∞ outside.

    x (N, C, H, W). Returns (N, C, OH, OW), OH = ⌊(H + 2 pad − KH) / stride⌋ + 1; by default, stride is the kernel.
    The gradient of equal elements goes to the first in the window. Raises ValueError if no window fits.
    """
    return reduce_windows(nd.maximum, x, kernel, stride, pad, float(np.finfo(x.dtype).min))


@accept_both_layouts
def avg_pool2d(x, kernel, *, stride=None, pad=0):
    """As max_pool2d, with the mean over the window instead of the maximum. x is 0 outside, and padding counts."""
    rows, columns = pair(kernel)
    return reduce_windows(nd.add, x, kernel, stride, pad, 0.0) * (1 / (rows * columns))


def reduce_windows(combine, x, kernel, stride, pad, outside):
    """Combine the pixels of each window of x (C, H, W, N) to one number, first along columns, then along rows.

    In this order `maximum`, which prefers its first argument, keeps the first of equal pixels, as the built-in does.
    """
    stride = pair(kernel if stride is None else stride)
    x = windows.pad_images(x, pair(pad), outside)
    for axis in (2, 1):  # columns, rows
        x = functools.reduce(combine, windows.slice_windows(x, axis, pair(kernel)[axis - 1], stride[axis - 1]))
    return x


def relu(x):
    """max(x, 0), with gradient 0 at 0.   V. Nair, G. Hinton 2010"""
    return nd.relu(x)


def tanh(x):
    """(eˣ − e⁻ˣ) / (eˣ + e⁻ˣ)"""
    return nd.tanh(x)


def sigmoid(x):
    """1 / (1 + e⁻ˣ)"""
    return nd.sigmoid(x)


def dropout(x, rate, *, axes=()):
    """x · [u ≥ rate] / (1 − rate) with new u ~ Uniform(0, 1) while training; x otherwise.

    All elements along `axes` share one u: axes=(2, 3) drops whole channels of (N, C, H, W).
    Raises ValueError for a rate outside [0, 1). N. Srivastava et al. 2014.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"a dropout rate lies in [0, 1), not {rate}")
    if not autograd.is_training():
        return x
    shared = x
    for axis in axes:
        shared = nd.slice_axis(shared, axis=axis, begin=0, end=1)
    mask = (nd.random.uniform_like(shared) >= rate) * (1 / (1 - rate))
    return x * nd.stop_gradient(nd.broadcast_like(mask, x))  # the mask needs no gradient


def flatten(x):
    """Each example's numbers in one row.   (N, C, H, W) -> (N, C · H · W)"""
    return x.reshape((len(x), -1))
