"""Every operation is the framework's: its values, and its gradients, in both layouts and both dtypes."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from proof import numbers, same

from tinymnist import ops, windows
from tinymnist.backend import autograd, mx, nd


def pair(size):
    return size if isinstance(size, tuple) else (size, size)


# The built-ins, called as ours are.


def fully_connected(x, weight, bias=None):
    return nd.FullyConnected(x, weight, bias, num_hidden=len(weight), no_bias=bias is None)


def convolution(x, weight, bias=None, *, stride=1, pad=0, dilate=1):
    how = {"stride": pair(stride), "pad": pair(pad), "dilate": pair(dilate)}
    filters, _, *kernel = weight.shape
    return nd.Convolution(x, weight, bias, kernel=kernel, num_filter=filters, no_bias=bias is None, **how)


def max_pooling(x, kernel, *, stride=None, pad=0, kind="max"):
    stride = kernel if stride is None else stride
    return nd.Pooling(x, kernel=pair(kernel), stride=pair(stride), pad=pair(pad), pool_type=kind)


avg_pooling = functools.partial(max_pooling, kind="avg")


def chwn(op):
    """op with layout="CHWN", for images (N, C, H, W)"""

    @functools.wraps(op)
    def call(x, *inputs, **options):
        return op(x.transpose((1, 2, 3, 0)), *inputs, layout="CHWN", **options).transpose((3, 0, 1, 2))

    return call


LAYOUTS = {"NCHW": lambda op: op, "CHWN": chwn}
each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


DENSES = [((1, 1), 1), ((5, 1), 4), ((3, 784), 10), ((64, 100), 50), ((3, 4, 5), 6), ((3, 2, 5, 4), 6)]  # x, units


@pytest.mark.parametrize("x, units", DENSES)
def test_dense_equals_the_built_in(x, units, dtype, device):
    x, weight, bias = numbers(dtype, x, (units, int(np.prod(x[1:]))), (units,))
    same(ops.dense, fully_connected, x, weight, bias, device=device)
    same(ops.dense, fully_connected, x, weight, device=device)


CONVOLUTIONS = [  # image, filters, kernel, stride, pad, dilation
    *itertools.product([(2, 3, 9, 13)], [4], [1, 3, (2, 5)], [1, 2, (3, 1)], [0, 1, (2, 0)], [1, 2, (1, 3)]),
    ((1, 1, 1, 1), 1, 1, 1, 0, 1),
    ((4, 1, 28, 28), 20, 5, 1, 0, 1),
    ((4, 20, 12, 12), 50, 5, 1, 0, 1),
    ((3, 2, 4, 6), 5, (4, 6), 1, 0, 1),
    ((1, 2, 3, 3), 2, 7, 1, 2, 1),
    ((33, 3, 5, 4), 2, (3, 2), 1, 1, 1),
]


@each_layout
@pytest.mark.parametrize("x, filters, kernel, stride, pad, dilate", CONVOLUTIONS)
def test_conv2d_equals_the_built_in(x, filters, kernel, stride, pad, dilate, layout, dtype, device):
    x, weight, bias = numbers(dtype, x, (filters, x[1], *pair(kernel)), (filters,))
    how = {"stride": stride, "pad": pad, "dilate": dilate, "device": device}
    same(layout(ops.conv2d), convolution, x, weight, bias, **how)
    same(layout(ops.conv2d), convolution, x, weight, **how)


POOLINGS = [  # image, kernel, stride, pad
    *itertools.product([(2, 3, 8, 7)], [2, 3, (2, 3), (4, 1)], [None, 1, (3, 2)], [0, (1, 0)]),
    ((1, 1, 1, 1), 1, None, 0),
    ((2, 20, 24, 24), 2, None, 0),
    ((2, 3, 5, 7), (5, 7), None, 0),
    ((2, 3, 7, 7), 1, 3, 0),
    ((2, 3, 6, 7), (2, 4), (3, 1), (1, 3)),
    ((2, 3, 2, 3), (4, 5), None, 1),
    ((33, 2, 3, 4), (3, 2), 1, 1),
]


def many_ties(dtype, shape):
    return np.random.default_rng(0).integers(-1, 2, shape).astype(dtype)


POOLS = [(ops.max_pool2d, max_pooling), (ops.avg_pool2d, avg_pooling)]


@each_layout
@pytest.mark.parametrize("x, kernel, stride, pad", POOLINGS)
@pytest.mark.parametrize("op, builtin", POOLS)
@pytest.mark.parametrize("draw", [numbers, many_ties])
def test_pooling_equals_the_built_in(op, builtin, draw, x, kernel, stride, pad, layout, dtype, device):
    same(layout(op), builtin, draw(dtype, x), kernel=kernel, stride=stride, pad=pad, device=device)


small = st.integers(1, 3)
sizes = st.tuples(small, small)


@pytest.mark.parametrize("op, builtin", [(ops.conv2d, convolution), *POOLS])
@given(
    x=st.tuples(small, small, st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=sizes,
    pad=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilate=sizes,
    filters=small,
)
def test_any_windows_equal_the_built_in(op, builtin, device, x, kernel, stride, pad, dilate, filters):
    if op is ops.conv2d:
        assume(all((k - 1) * d < size + 2 * p for k, d, size, p in zip(kernel, dilate, x[2:], pad)))
        inputs, how = numbers("float64", x, (filters, x[1], *kernel), (filters,)), {"dilate": dilate}
    else:
        assume(all(p < k <= size + 2 * p for k, size, p in zip(kernel, x[2:], pad)))  # the built-in asks for p < k
        inputs, how = [np.round(numbers("float64", x))], {"kernel": kernel}
    for layout in LAYOUTS.values():
        same(layout(op), builtin, *inputs, stride=stride, pad=pad, device=device, **how)


each_scale = pytest.mark.parametrize("scale", [1e-3, 1, 30, 1e4])


@each_scale
@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
def test_activation_equals_the_built_in(name, scale, dtype, device):
    x = scale * numbers(dtype, (2, 3, 4, 5))
    x[..., -1] = 0  # where relu has a corner
    floor = 0.02 if (name, dtype) == ("tanh", "float32") else 0.0  # 1e-5 of this: tanh may be wrong by 2e-7
    same(getattr(ops, name), functools.partial(nd.Activation, act_type=name), x, device=device, floor=floor)


IMAGES = [(1, 1, 1, 1), (2, 3, 4, 5), (5, 1, 3, 2)]


@pytest.mark.parametrize("x", IMAGES)
def test_changes_of_shape_equal_the_built_in(x, dtype, device):
    same(ops.flatten, nd.flatten, numbers(dtype, x), device=device)
    same(windows.to_chwn, lambda x: x.transpose((1, 2, 3, 0)), numbers(dtype, x), device=device)
    same(windows.to_nchw, lambda x: x.transpose((3, 0, 1, 2)), numbers(dtype, x), device=device)


# Dropout has its own random numbers, and so is compared by its mask.


def draw_mask(dropout, shape, device, dtype="float32"):
    """The mask in dropout(x) = x · mask: it is also the gradient."""
    x = nd.array(numbers(dtype, shape), device, dtype)
    x.attach_grad()
    with autograd.record():
        y = dropout(x)
    y.backward()
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y.asnumpy(), (x * x.grad).asnumpy())
    return x.grad.asnumpy()


each_rate = pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
each_axes = pytest.mark.parametrize("axes", [(), (0,), (1,), (2, 3), (1, 2), (0, 3)])


@each_rate
def test_dropout_keeps_scales_and_drops_as_the_built_in_does(rate, dtype, device):
    pair = (lambda x: ops.dropout(x, rate), lambda x: nd.Dropout(x, p=rate))
    ours, theirs = (draw_mask(dropout, (50, 40), device, dtype) for dropout in pair)
    np.testing.assert_allclose(np.unique(ours), np.unique(theirs), rtol=1e-6)  # 0 and 1 / (1 - rate)
    assert abs((ours == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / ours.size)
    assert (ours != draw_mask(pair[0], (50, 40), device, dtype)).any()  # every step draws a new mask


@each_axes
def test_dropout_of_axes_shares_a_draw_along_them(axes, device):
    for dropout in (lambda x: ops.dropout(x, 0.5, axes=axes), lambda x: nd.Dropout(x, p=0.5, axes=axes)):
        mask = draw_mask(dropout, (6, 7, 8, 9), device)
        one = mask[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(4))]
        np.testing.assert_array_equal(mask, np.broadcast_to(one, mask.shape))
        assert 0 < (one == 0).mean() < 1
        assert all((np.diff(one, axis=axis) != 0).any() for axis in range(4) if axis not in axes)


def test_dropout_is_off_in_prediction_and_for_rate_0(device):
    x = nd.ones((50, 40), device)
    with autograd.record(train_mode=False):
        recorded = ops.dropout(x, 0.5)
    for y in (recorded, ops.dropout(x, 0.5)):
        np.testing.assert_array_equal(y.asnumpy(), x.asnumpy())
    assert (draw_mask(lambda x: ops.dropout(x, 0), (50, 40), device) == 1).all()
    with autograd.record():
        assert ops.dropout(x, 0) is x  # it draws no numbers


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan")])
def test_dropout_refuses_other_rates(rate):
    with pytest.raises(ValueError, match=r"dropout rate lies in \[0, 1\), not"):
        ops.dropout(nd.ones((2, 2)), rate)


REFUSED = [  # operation, height and width, kernel, options
    (ops.max_pool2d, (4, 9), 5, {}, "a window of 5 is larger than the 4 pixels of the padded image"),
    (ops.avg_pool2d, (2, 2), 5, {"pad": 1}, "a window of 5 is larger than the 4 pixels"),
    (ops.max_pool2d, (4, 4), 0, {}, "kernel 0, stride 0 and dilate 1 must be at least 1, and pad 0 at least 0"),
    (ops.max_pool2d, (4, 4), 0, {"stride": 1}, "kernel 0, stride 1"),
    (ops.max_pool2d, (4, 4), 2, {"stride": 0}, "stride 0"),
    (ops.avg_pool2d, (4, 4), 2, {"stride": (1, -1)}, "stride -1"),
    (ops.max_pool2d, (4, 4), 2, {"pad": 2}, r"pad \(2, 2\) must be smaller than kernel \(2, 2\)"),
    (ops.max_pool2d, (4, 4), 1, {"pad": 1}, r"pad \(1, 1\) must be smaller than kernel \(1, 1\)"),
    (ops.avg_pool2d, (4, 4), 2, {"pad": (0, 3)}, r"pad \(0, 3\) must be smaller"),
    (ops.avg_pool2d, (4, 4), 2, {"pad": -1}, "pad -1 at least 0"),
    (ops.max_pool2d, (4, 4), 2.0, {}, "whole numbers or pairs of them, not 2.0"),
    (ops.conv2d, (4, 9), 5, {}, "a window of 5 is larger than the 4 pixels"),
    (ops.conv2d, (9, 4), 3, {"dilate": 2}, "a window of 5 is larger than the 4 pixels"),
    (ops.conv2d, (2, 3), 5, {"pad": 1}, "a window of 5 is larger than the 4 pixels"),
    (ops.conv2d, (4, 4), 3, {"stride": 0}, "stride 0"),
    (ops.conv2d, (4, 4), 3, {"dilate": (1, 0)}, "dilate 0"),
    (ops.conv2d, (4, 4), 3, {"pad": (0, -1)}, "pad -1"),
    (ops.conv2d, (4, 4), 2, {"layout": "CHNW"}, "layout 'CHNW'; expected four axes, in the order NCHW or CHWN"),
    (ops.max_pool2d, (4, 4), 2, {"layout": "CHNW"}, "layout 'CHNW'"),
]


@pytest.mark.parametrize("op, size, kernel, options, sentence", REFUSED)
def test_windows_that_do_not_fit_and_other_layouts_are_refused(op, size, kernel, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        op(nd.ones((1, 1, *size)), nd.ones((1, 1, kernel, kernel)) if op is ops.conv2d else kernel, **options)


def test_defaults_are_stride_1_no_padding_and_dilate_1_and_the_stride_of_pooling_is_the_kernel(device):
    x, weight = nd.random.normal(shape=(2, 3, 6, 6), ctx=device), nd.random.normal(shape=(4, 3, 3, 3), ctx=device)
    pairs = [(ops.conv2d(x, weight), ops.conv2d(x, weight, None, stride=1, pad=0, dilate=1))]
    for pool in (ops.max_pool2d, ops.avg_pool2d):
        pairs.append((pool(x, 3), pool(x, (3, 3), stride=(3, 3), pad=0)))
    for default, expected in pairs:
        assert np.array_equal(default.asnumpy(), expected.asnumpy())


def test_the_padding_of_max_pool2d_is_smaller_than_any_pixel(device):
    x = nd.full((1, 1, 2, 2), -1e30, device)
    assert (ops.max_pool2d(x, 2, stride=1, pad=1).asnumpy() == np.float32(-1e30)).all()


@pytest.mark.parametrize("op", [ops.conv2d, ops.max_pool2d, ops.avg_pool2d])
def test_images_have_four_axes(op):
    with pytest.raises(ValueError, match=r"images \(3, 4, 4\) of layout 'NCHW'; expected four axes"):
        op(nd.ones((3, 4, 4)), nd.ones((1, 3, 2, 2)) if op is ops.conv2d else 2)


@pytest.mark.parametrize("op, x, outputs", [(ops.dense, (2, 3), (5,)), (ops.conv2d, (2, 3, 4, 4), (5, 4, 4))])
def test_parameters_of_other_shapes_are_refused(op, x, outputs):
    kernel = (1, 1) * (len(x) == 4)
    assert op(nd.ones(x), nd.ones((5, 3, *kernel)), nd.ones(5)).shape == (2, *outputs)
    for weight, bias in (((5, 2), 5), ((5, 3), 1), ((5, 3), 4)):
        with pytest.raises(
            ValueError, match=r"a weight \(5, ., .*do not suit each other and 3 inputs" if kernel else "3 inputs"
        ):
            op(nd.ones(x), nd.ones((*weight, *kernel)), nd.ones(bias))
    with pytest.raises(ValueError, match="no bias do not suit each other and 3 inputs"):
        op(nd.ones(x), nd.ones((5, 4, *kernel)))


def test_constants_are_made_once_on_their_device():
    def make(device):
        return windows.constant(windows.index_table, (1, 3, 3), (2, 2), (1, 1), (0, 0), (1, 1), device)

    table = make(mx.cpu(1))
    assert (table.context, table.dtype) == (mx.cpu(1), np.int32)  # float32 has no odd row numbers from 2^24 on
    assert make(mx.cpu(1)) is table
    assert make(mx.cpu(0)) is not table


def test_the_index_table_is_that_of_its_docstring():
    table = windows.index_table((1, 3, 3), (2, 2), (1, 1), (0, 0), (1, 1), mx.cpu()).asnumpy().reshape(5, 4)
    assert table.tolist() == [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8], [9, 9, 9, 9]]
    assert all(" ".join(map(str, row)) in windows.index_table.__doc__ for row in table)
