"""Sliding windows over images: how many fit, padding, and the pixels that each window covers.

Inside a network, images are (C, H, W, N) instead of (N, C, H, W). The N values of one pixel then lie side by side in
memory, so that a whole batch is copied or compared in one run.
"""

import math

import numpy as np

from tinymnist.backend import nd

CONSTANTS = {}  # arrays that never change, made once; runtime/graph.py passes them to its graphs as inputs


def constant(make, *arguments):
    """make(*arguments), an array that never changes: it is made by the first call only."""
    if (make, arguments) not in CONSTANTS:
        CONSTANTS[make, arguments] = make(*arguments)
        CONSTANTS[make, arguments].attach_grad("null")  # gives it a name in recorded graphs; it needs no gradient
    return CONSTANTS[make, arguments]


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


def count_windows(size, kernel, stride=(1, 1), pad=(0, 0), dilate=(1, 1)):
    """How many windows fit along each axis: ⌊(size + 2 pad − dilate (kernel − 1) − 1) / stride⌋ + 1, all of them pairs.

    Raises ValueError if not even one fits.
    """
    counts = []
    for n, k, step, p, d in zip(size, kernel, stride, pad, dilate):
        if min(k, step, d) < 1:
            raise ValueError(f"kernel, stride and dilation are at least 1, not {k}, {step} and {d}")
        pixels, span = n + 2 * p, d * (k - 1) + 1
        if span > pixels:
            raise ValueError(f"a window of {span} is larger than the {pixels} pixels of the padded image")
        counts.append((pixels - span) // step + 1)
    return tuple(counts)


def pad_images(x, pad, value):
    """x (C, H, W, N) with rows and columns of `value` around H and W; pad = (rows, columns) on either side"""
    rows, columns = pad
    if not rows and not columns:
        return x
    channels, height, width, n = x.shape
    widths = (0, 0, 0, 0, rows, rows, columns, columns, 0, 0)  # MXNet pads the inner axes of five-dimensional arrays
    x = nd.pad(x.expand_dims(0), mode="constant", constant_value=value, pad_width=widths)
    return x.reshape((channels, height + 2 * rows, width + 2 * columns, n))


def index_table(channels, height, width, kh, kw, sh, sw, dh, dw, device):
    """Which pixels each window covers, for images laid out as rows of a matrix (C · H · W, N).

    table[(c, i, j), p, q] = (c · H + p · SH + i · DH) · W + q · SW + j · DW is the row of pixel (i, j) of window (p, q)
    in channel c, with strides SH, SW and dilations DH, DW. One more line, for the bias of conv2d, names the row after
    all pixels. Shape (C · KH · KW + 1, OH, OW), int32.
    """
    oh, ow = count_windows((height, width), (kh, kw), (sh, sw), dilate=(dh, dw))
    c, i, j, p, q = np.ix_(*map(np.arange, (channels, kh, kw, oh, ow)))
    table = ((c * height + p * sh + i * dh) * width + q * sw + j * dw).reshape(-1, oh, ow)
    after = np.full((1, oh, ow), channels * height * width)
    return nd.array(np.concatenate([table, after]), ctx=device, dtype="int32")


def slice_windows(x, axis, kernel, stride):
    """`kernel` arrays: number i holds, for every window along `axis`, the pixel at place i of that window."""
    (count,) = count_windows([x.shape[axis]], [kernel], [stride])
    if kernel != stride:
        skip, end = (None,) * axis, (count - 1) * stride + 1
        return [nd.slice(x, (*skip, i), (*skip, i + end), (*skip, stride)) for i in range(kernel)]
    # Windows that touch but do not overlap are a reshape: its gradient is cheaper than that of a slice.
    x = nd.slice_axis(x, axis=axis, begin=0, end=count * kernel) if x.shape[axis] > count * kernel else x
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    parts = x.reshape((math.prod(before) * count, kernel, -1)).split(kernel, axis=1) if kernel > 1 else [x]
    return [part.reshape((*before, count, *after)) for part in parts]
