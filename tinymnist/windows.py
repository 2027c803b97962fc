"""Sliding windows over images: how many fit, padding, and the pixels that each window covers.

Inside a network, images are (C, H, W, N) instead of (N, C, H, W). The N values of one pixel then lie side by side in
memory, so that a whole batch is copied or compared in one run.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from tinymnist.backend import nd

CONSTANTS = []  # all arrays made by a `constant` function; runtime/graph.py must tell a recorded step about them


def constant(make):
    """`make`, a function that returns an array which never changes, called only once for the same arguments."""

    @functools.cache
    def make_once(*arguments):
        array = make(*arguments)
        array.attach_grad("null")  # gives the array a name in recorded graphs; it needs no gradient
        CONSTANTS.append(array)
        return array

    return make_once


@constant
def ones(shape, device, dtype):
    return nd.ones(shape, ctx=device, dtype=dtype)


@constant
def zeros(shape, device, dtype):
    return nd.zeros(shape, ctx=device, dtype=dtype)


def to_chwn(x):
    """(N, C, H, W) -> (C, H, W, N)"""
    n, *image = x.shape
    return x.reshape((n, -1)).transpose().reshape((*image, n))


def to_nchw(x):
    """(C, H, W, N) -> (N, C, H, W)"""
    *image, n = x.shape
    return x.reshape((-1, n)).transpose().reshape((n, *image))


def pair(size):
    """3 -> (3, 3), for rows and columns; a pair stays as it is"""
    return tuple(size) if isinstance(size, (tuple, list)) else (size, size)


def count_windows(size, kernel, stride):
    """How many windows of `kernel` pixels fit into `size` pixels at steps of `stride`.

    Raises ValueError if not even one fits.
    """
    if kernel < 1 or stride < 1:
        raise ValueError(f"kernel, stride and dilation are at least 1, not {kernel} and {stride}")
    if kernel > size:
        raise ValueError(
            f"a window of {kernel} is larger than the {size} pixels of the padded image; it must fit at least once"
        )
    return (size - kernel) // stride + 1


def pad_images(x, pad, value):
    """x (C, H, W, N) with rows and columns of `value` around H and W; pad = (rows, columns) on either side"""
    rows, columns = pad
    if not rows and not columns:
        return x
    channels, height, width, n = x.shape
    widths = (0, 0, 0, 0, rows, rows, columns, columns, 0, 0)  # MXNet pads the inner axes of five-dimensional arrays
    x = nd.pad(x.expand_dims(0), mode="constant", constant_value=value, pad_width=widths)
    return x.reshape((channels, height + 2 * rows, width + 2 * columns, n))


@constant
def index_table(channels, height, width, kh, kw, sh, sw, dh, dw, device):
    """Which pixels each window covers, for images laid out as rows of a matrix (C · H · W, N).

    table[(c, i, j), p, q] is the row of pixel (i, j) of window (p, q) in channel c:

        (c · H + p · SH + i · DH) · W + q · SW + j · DW

    with strides SH, SW and dilations DH, DW. One more line names the row after all pixels, for the bias of conv2d.
    Shape (C · KH · KW + 1, OH, OW), int32.
    """
    oh, ow = count_windows(height, (kh - 1) * dh + 1, sh), count_windows(width, (kw - 1) * dw + 1, sw)
    c, i, j, p, q = np.ix_(*map(np.arange, (channels, kh, kw, oh, ow)))
    table = ((c * height + p * sh + i * dh) * width + q * sw + j * dw).reshape(-1, oh, ow)
    after = np.full((1, oh, ow), channels * height * width)
    return nd.array(np.concatenate([table, after]), ctx=device, dtype="int32")


def slice_windows(x, axis, kernel, stride):
    """`kernel` arrays: number i holds, for every window along `axis`, the pixel at place i of that window."""
    count = count_windows(x.shape[axis], kernel, stride)
    if kernel != stride:
        skip, end = (None,) * axis, (count - 1) * stride + 1
        return [nd.slice(x, (*skip, i), (*skip, i + end), (*skip, stride)) for i in range(kernel)]
    # Windows that touch but do not overlap are a reshape: its gradient is cheaper than that of a slice.
    x = nd.slice_axis(x, axis=axis, begin=0, end=count * kernel) if x.shape[axis] > count * kernel else x
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    parts = x.reshape((math.prod(before) * count, kernel, -1)).split(kernel, axis=1) if kernel > 1 else [x]
    return [part.reshape((*before, count, *after)) for part in parts]
