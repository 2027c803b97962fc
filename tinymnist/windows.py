"""Sliding windows over images: how many fit, padding, and the pixels that each window covers.

stride is the step from window to window, dilate the step from pixel to pixel inside one; pad is added at each border.
In shapes, KH and KW are the size of the kernel (the window), OH and OW the numbers of windows.
Inside a network, images are (C, H, W, N) instead of (N, C, H, W). The N values of one pixel then lie side by side in
memory, so that they are copied or compared as one block.
"""

import math
import numbers

import numpy as np

from tinymnist.backend import nd

CONSTANTS = {}  # arrays that do not depend on data: computed once, then kept


def constant(make, *arguments):
    """make(*arguments), computed by the first call and kept."""
    key = (make, arguments)
    if key not in CONSTANTS:
        CONSTANTS[key] = make(*arguments)
        CONSTANTS[key].attach_grad("null")  # no gradient, but a mark: runtime/graph.py needs it
    return CONSTANTS[key]


def to_chwn(x):
    """(N, C, H, W) -> (C, H, W, N)"""
    return x.transpose((1, 2, 3, 0))


def to_nchw(x):
    """(C, H, W, N) -> (N, C, H, W)"""
    return x.transpose((3, 0, 1, 2))


def pair(size):
    """3 -> (3, 3), for rows and columns; a pair stays as it is. Raises ValueError for anything else."""
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(sizes) != 2 or not all(isinstance(n, numbers.Integral) for n in sizes):
        raise ValueError(f"kernel, stride, pad and dilate are whole numbers or pairs of them, not {size!r}")
    return sizes


def pooling_pairs(kernel, stride, pad):
    """kernel, stride and pad as pairs. The default stride, None, is the kernel. Raises ValueError if pad ≥ kernel."""
    kernel, pad = pair(kernel), pair(pad)
    if any(p >= k > 0 for k, p in zip(kernel, pad)):  # count_windows reports k < 1
        raise ValueError(f"pad {pad} must be smaller than kernel {kernel}, or windows would lie beside the image")
    return kernel, (kernel if stride is None else pair(stride)), pad


def count_windows(size, kernel, stride, pad, dilate=(1, 1)):
    """How many windows fit along each axis: ⌊(size + 2 · pad − span) / stride⌋ + 1.

    A window spans dilate · (kernel − 1) + 1 pixels. Every argument is a pair (rows, columns).
    Raises ValueError if no window fits, or a number is too small.
    """
    counts = []
    for n, k, step, p, d in zip(size, kernel, stride, pad, dilate):
        if min(k, step, d) < 1 or p < 0:
            raise ValueError(f"kernel {k}, stride {step} and dilate {d} must be at least 1, and pad {p} at least 0")
        pixels, span = n + 2 * p, d * (k - 1) + 1
        if span > pixels:
            raise ValueError(f"a window of {span} is larger than the {pixels} pixels of the padded image")
        counts.append((pixels - span) // step + 1)
    return tuple(counts)


def pad_images(x, pad, value):
    """x (C, H, W, N) with pad[0] rows of `value` above and below, and pad[1] columns of it left and right"""
    rows, columns = pad
    if not rows and not columns:
        return x
    widths = (0, 0, 0, 0, rows, rows, columns, columns, 0, 0)  # nd.pad can pad the last three of five axes: H, W, N
    x = nd.pad(x.expand_dims(0), mode="constant", constant_value=value, pad_width=widths)
    return x.reshape(x.shape[1:])


def index_table(size, kernel, stride, pad, dilate, device):
    """Which pixels each window covers: conv2d takes them by this table.

    In padded images of h × w pixels, pixel (y, x) of channel c is number (c h + y) w + x.

    A 3×3 image has four windows of 2×2, and the table, with one column per window, is
        0 1 3 4    pixel (0, 0) of each window
        1 2 4 5    pixel (0, 1)
        3 4 6 7    pixel (1, 0)
        4 5 7 8    pixel (1, 1)
        9 9 9 9    after the nine pixels, a row of ones, which conv2d appends for the bias
    In general, pixel (i, j) of window (p, q) is pixel (p · stride + i · dilate, q · stride + j · dilate) after padding.
    size is (channels, height, width) before padding. Returns (C · KH · KW + 1, OH, OW), int32, for OH × OW windows.
    """
    channels, *image = size
    oh, ow = count_windows(image, kernel, stride, pad, dilate)
    height, width = image[0] + 2 * pad[0], image[1] + 2 * pad[1]
    c, i, j, p, q = np.ix_(*map(np.arange, (channels, *kernel, oh, ow)))  # c (C, 1, 1, 1, 1), …, q (1, 1, 1, 1, OW)
    y, x = p * stride[0] + i * dilate[0], q * stride[1] + j * dilate[1]
    table = ((c * height + y) * width + x).reshape(-1, oh, ow)
    ones_row = np.full((1, oh, ow), channels * height * width)
    return nd.array(np.concatenate([table, ones_row]), ctx=device, dtype="int32")


def slice_windows(x, axis, count, kernel, stride):
    """Returns `kernel` arrays; array i holds pixel i of each window along one axis. kernel and stride are numbers.

    With kernel 2 and stride 2, the pixels a b c d give [a c] and [b d]; their maximum is max-pooling.
    """
    if kernel == stride > 1:
        # Windows that touch: reshape the axis to (count, kernel), then split; faster. (split(1) returns a bare array.)
        if x.shape[axis] > count * kernel:
            x = nd.slice_axis(x, axis=axis, begin=0, end=count * kernel)
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        parts = x.reshape((math.prod(before) * count, kernel, -1)).split(kernel, axis=1)
        return [part.reshape((*before, count, *after)) for part in parts]
    skip, span = (None,) * axis, (count - 1) * stride + 1
    # for axis 1, each array is x[:, i : i + span : stride]
    return [nd.slice(x, (*skip, i), (*skip, i + span), (*skip, stride)) for i in range(kernel)]
