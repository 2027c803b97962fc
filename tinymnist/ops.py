"""The operations of a network, as pure functions of arrays.

Images are (N, C, H, W), as in Gluon. With layout="CHWN" the same operations take and give (C, H, W, N): the batch index
runs fastest there, so that one pixel of a whole batch is a run of N numbers, to be copied and compared as one.
"""

from __future__ import annotations

import math
from functools import reduce, wraps

import numpy as np

from tinymnist.backend import autograd, nd
from tinymnist.runtime.graph import constant

NARROW = 32  # units, up to which one slow operation is quicker than three quick ones


def either_layout(op):
    """op, which takes and gives (C, H, W, N), with the choice of a layout.   ValueError: another than the two"""

    @wraps(op)
    def chosen(x, *inputs, layout="NCHW", **options):
        if layout == "CHWN":
            return op(x, *inputs, **options)
        if layout != "NCHW":
            raise ValueError(f"there is no layout {layout!r}; the layouts are NCHW and CHWN")
        return from_chwn(op(to_chwn(x), *inputs, **options))

    return chosen


def dense(x, weight, bias=None):
    """y = x Wᵀ + b.   x (N, I) or (N, …) with I numbers each, weight (O, I), bias (O,) -> (N, O)"""
    x = x if x.ndim == 2 else flatten(x)
    y = nd.dot(x, weight, transpose_b=True)
    if bias is None:
        return y
    # Long rows (b, b, …, b) as the product 1 bᵀ: a broadcast would do, but its gradient is a sum, five times as slow.
    if len(bias) > NARROW:
        bias = nd.dot(ones((x.shape[0], 1), x.context, x.dtype), bias.expand_dims(0))
    return y + bias


@either_layout
def conv2d(x, weight, bias=None, *, stride=1, pad=0, dilate=1):
    """y[n,f,p,q] = b[f] + Σ_cij W[f,c,i,j] x[n, c, p·stride + i·dilate − pad, q·stride + j·dilate − pad]

    x (N, C, H, W), 0 outside, weight (F, C, KH, KW), bias (F,) -> (N, F, OH, OW),
    OH = ⌊(H + 2 pad − dilate (KH − 1) − 1) / stride⌋ + 1, and OW likewise.
    stride, pad and dilate are a number or a pair (rows, columns). ValueError: a kernel larger than the padded image.
    The convolution as one product: K. Chellapilla, S. Puri, P. Simard 2006.
    """
    filters, _, *kernel = weight.shape
    x = padded(x, pair(pad), 0.0)
    *image, n = x.shape
    table = windows(*image, *kernel, *pair(stride), *pair(dilate), x.context)
    if bias is None:
        bias = zeros((filters,), x.context, x.dtype)
    # The bias is one more column of weights, over a row of ones: it costs nothing then, nor does its gradient.
    rows = nd.concat(x.reshape((-1, n)), ones((1, n), x.context, x.dtype), dim=0)  # (C · H · W + 1, N)
    columns = nd.take(rows, table).reshape((0, -1))  # (C · KH · KW + 1, OH · OW · N)
    matrix = nd.concat(weight.reshape((filters, -1)), bias.reshape((filters, 1)), dim=1)
    return nd.dot(matrix, columns).reshape((filters, *table.shape[1:], n))


@either_layout
def max_pool2d(x, kernel, *, stride=None, pad=0):
    """y[n,c,p,q] = max over i < KH, j < KW of x[n, c, p·stride + i − pad, q·stride + j − pad], x being −∞ outside.

    x (N, C, H, W) -> (N, C, OH, OW), OH = ⌊(H + 2 pad − KH) / stride⌋ + 1; stride is the kernel where none is given.
    Of equal elements the first in the window has the gradient. ValueError: a kernel larger than the padded image.
    """
    return pooled(x, nd.maximum, kernel, stride, pad, float(np.finfo(x.dtype).min))


@either_layout
def avg_pool2d(x, kernel, *, stride=None, pad=0):
    """As max_pool2d, with the mean over the window in place of the maximum, x being 0 outside (padding counts)."""
    rows, columns = pair(kernel)
    return pooled(x, nd.add, kernel, stride, pad, 0.0) * (1 / (rows * columns))


def relu(x):
    """max(x, 0), with gradient 0 at 0.   Nair, Hinton 2010"""
    return nd.relu(x)


def tanh(x):
    """(eˣ − e⁻ˣ) / (eˣ + e⁻ˣ)"""
    return nd.tanh(x)


def sigmoid(x):
    """1 / (1 + e⁻ˣ)"""
    return nd.sigmoid(x)


def dropout(x, rate, *, axes=()):
    """While training: x · [u ≥ rate] / (1 − rate) with u ~ Uniform(0, 1), drawn afresh; otherwise x.

    One u serves all of each of `axes`: (2, 3) drops whole channels of (N, C, H, W).   ValueError: rate outside [0, 1)
    Srivastava et al. 2014.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"a dropout rate lies in [0, 1), not {rate}")
    if not autograd.is_training():
        return x
    like = reduce(lambda part, axis: nd.slice_axis(part, axis=axis, begin=0, end=1), axes, x)
    keep = nd.random.uniform_like(like) >= rate
    # Spread first and cut off from the gradient: MXNet would sum up one for the mask, a quarter of dropout_cnn's step.
    return x * nd.stop_gradient(nd.broadcast_like(keep * (1 / (1 - rate)), x))


def flatten(x):
    """Each example's numbers in one row.   (N, C, H, W) -> (N, C · H · W)"""
    return x.reshape((x.shape[0], -1))


def to_chwn(x):
    """(N, C, H, W) -> (C, H, W, N)"""
    n, *image = x.shape
    return x.reshape((n, -1)).transpose().reshape((*image, n))


def from_chwn(x):
    """(C, H, W, N) -> (N, C, H, W)"""
    *image, n = x.shape
    return x.reshape((-1, n)).transpose().reshape((n, *image))


@constant
def ones(shape, device, dtype):
    return nd.ones(shape, ctx=device, dtype=dtype)


@constant
def zeros(shape, device, dtype):
    return nd.zeros(shape, ctx=device, dtype=dtype)


def pair(size):
    """3 -> (3, 3), for rows and columns; a pair stays as it is"""
    return tuple(size) if isinstance(size, (tuple, list)) else (size, size)


def padded(x, pad, value):
    """x (C, H, W, N) with `pad` rows and columns of `value` on either side of H and W"""
    rows, columns = pad
    if not rows and not columns:
        return x
    width = (0, 0, 0, 0, rows, rows, columns, columns, 0, 0)
    return nd.pad(x.expand_dims(0), mode="constant", constant_value=value, pad_width=width).reshape(shape=(-3, -2))


def fits(size, kernel, stride):
    """How many windows of `kernel` lie in `size` at steps of `stride`.   ValueError: not even one"""
    if kernel < 1 or stride < 1:
        raise ValueError(f"kernel, stride and dilation are at least 1, not {kernel} and {stride}")
    if kernel > size:
        raise ValueError(
            f"a window of {kernel} is larger than the {size} pixels of the padded image; it must fit at least once"
        )
    return (size - kernel) // stride + 1


@constant
def windows(channels, height, width, kh, kw, sh, sw, dh, dw, device):
    """For (c, i, j) in the kernel and for every window (p, q) the row of (C · H · W, N) where that pixel of it lies.

    -> (C · KH · KW + 1, OH, OW); the last names the row after all pixels. One `take` by this table instead of a slice
    for each (i, j), and their concatenation: LeNet's step takes 34 ms, not 40; 52, not 81, where no graph is replayed.
    """
    oh, ow = fits(height, (kh - 1) * dh + 1, sh), fits(width, (kw - 1) * dw + 1, sw)
    c, i, j, p, q = np.ix_(*map(np.arange, (channels, kh, kw, oh, ow)))
    table = ((c * height + p * sh + i * dh) * width + q * sw + j * dw).reshape(-1, oh, ow)
    after = np.full((1, oh, ow), channels * height * width)
    return nd.array(np.concatenate([table, after]), ctx=device, dtype="int32")


def pooled(x, join, kernel, stride, pad, outside):
    """Each window of x (C, H, W, N) joined to one number: first along its columns, then along its rows."""
    kernel = pair(kernel)
    stride = kernel if stride is None else pair(stride)
    x = padded(x, pair(pad), outside)
    # Columns first: of equal maxima the upper, then the left one is kept, as by the built-in.
    x = reduce(join, strips(x, 2, kernel[1], stride[1]))
    x = reduce(join, strips(x, 1, kernel[0], stride[0]))
    return x


def strips(x, axis, kernel, stride):
    """For every place in a window of `kernel` along `axis`, what all windows hold there: a list of `kernel` arrays."""
    count = fits(x.shape[axis], kernel, stride)
    # Windows side by side are a split of a reshape, whose gradient is a copy: half the time of slices.
    if kernel == stride:
        x = nd.slice_axis(x, axis=axis, begin=0, end=count * kernel) if x.shape[axis] > count * kernel else x
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        parts = x.reshape((math.prod(before) * count, kernel, -1)).split(kernel, axis=1) if kernel > 1 else [x]
        return [part.reshape((*before, count, *after)) for part in parts]
    end = (count - 1) * stride + 1
    return [
        nd.slice(x, begin=(None,) * axis + (i,), end=(None,) * axis + (i + end,), step=(None,) * axis + (stride,))
        for i in range(kernel)
    ]
