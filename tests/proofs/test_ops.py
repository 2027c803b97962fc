"""Every operation is the framework's: its values, and its gradients, in both layouts and both dtypes."""

import functools

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
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


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize(
    "x, units",
    [
        ((1, 1), 1),
        ((1, 7), 3),
        ((5, 1), 4),
        ((4, 3), 1),
        ((3, 784), 10),
        ((64, 100), 50),
        ((2, 3, 4), 5),
        ((1, 1, 28, 28), 10),
        ((3, 2, 5, 4), 6),
    ],
)
def test_dense_equals_the_built_in(x, units, bias, dtype, device):
    inputs = numbers(dtype, x, (units, int(np.prod(x[1:]))), (units,))
    same(ops.dense, fully_connected, *inputs[: 3 if bias else 2], device=device)


CONVOLUTIONS = [  # x, filters, kernel, how
    ((1, 1, 1, 1), 1, 1, {}),
    ((2, 1, 5, 5), 1, 1, {}),
    ((2, 3, 5, 5), 4, 1, {}),
    ((2, 3, 5, 5), 4, 2, {}),
    ((2, 3, 5, 5), 4, 3, {}),
    ((2, 3, 6, 6), 4, 4, {}),
    ((2, 2, 9, 9), 3, 5, {}),
    ((2, 2, 9, 9), 3, 6, {}),
    ((2, 2, 9, 9), 3, 7, {}),
    ((4, 1, 28, 28), 20, 5, {}),
    ((4, 20, 12, 12), 50, 5, {}),
    ((2, 16, 7, 7), 16, 3, {}),
    ((3, 16, 4, 4), 1, 3, {}),
    ((3, 1, 4, 4), 16, 3, {}),
    ((1, 1, 5, 5), 1, 5, {}),
    ((1, 3, 7, 7), 2, 7, {}),
    ((3, 2, 4, 6), 5, (4, 6), {}),
    ((2, 2, 7, 8), 3, (1, 3), {}),
    ((2, 2, 7, 8), 3, (3, 1), {}),
    ((2, 2, 9, 11), 3, (2, 5), {}),
    ((2, 2, 11, 9), 3, (7, 4), {}),
    ((2, 3, 7, 7), 4, 1, {"stride": 2}),
    ((2, 3, 7, 7), 4, 1, {"stride": 3}),
    ((2, 3, 7, 7), 4, 2, {"stride": 2}),
    ((2, 3, 8, 8), 4, 3, {"stride": 2}),
    ((2, 3, 9, 9), 4, 3, {"stride": 3}),
    ((2, 3, 10, 10), 4, 3, {"stride": 3}),
    ((2, 3, 11, 11), 4, 5, {"stride": 3}),
    ((2, 2, 7, 9), 3, 2, {"stride": (1, 3)}),
    ((2, 2, 9, 7), 3, 3, {"stride": (3, 2)}),
    ((2, 2, 5, 5), 3, 5, {"stride": 3}),
    ((2, 3, 5, 5), 4, 1, {"pad": 1}),
    ((2, 3, 5, 5), 4, 3, {"pad": 1}),
    ((2, 3, 5, 5), 4, 3, {"pad": 2}),
    ((2, 3, 5, 5), 4, 5, {"pad": 3}),
    ((2, 3, 5, 5), 4, 7, {"pad": 3}),
    ((1, 2, 3, 3), 2, 7, {"pad": 2}),
    ((2, 2, 5, 7), 3, 3, {"pad": (0, 2)}),
    ((2, 2, 5, 7), 3, 3, {"pad": (2, 0)}),
    ((2, 2, 5, 7), 3, (2, 5), {"pad": (1, 3)}),
    ((2, 2, 7, 7), 3, 2, {"dilate": 2}),
    ((2, 2, 7, 7), 3, 3, {"dilate": 2}),
    ((2, 2, 7, 7), 3, 3, {"dilate": 3}),
    ((2, 2, 9, 9), 3, 2, {"dilate": 3}),
    ((2, 2, 7, 7), 3, 1, {"dilate": 3}),
    ((2, 2, 8, 7), 3, 3, {"dilate": (1, 2)}),
    ((2, 2, 9, 7), 3, (3, 2), {"dilate": (3, 1)}),
    ((2, 2, 7, 7), 3, 3, {"stride": 2, "pad": 1}),
    ((2, 2, 8, 8), 3, 3, {"stride": 2, "pad": 1}),
    ((2, 2, 8, 8), 3, 3, {"stride": 3, "pad": 2}),
    ((1, 1, 13, 13), 2, 3, {"stride": 2, "pad": 1, "dilate": 2}),
    ((2, 2, 13, 11), 3, 3, {"stride": 3, "pad": 3, "dilate": 3}),
    ((2, 2, 7, 9), 3, (2, 5), {"stride": (1, 3), "pad": (0, 2)}),
    ((3, 2, 9, 7), 4, (3, 2), {"stride": (2, 1), "pad": (1, 3), "dilate": (1, 3)}),
    ((3, 2, 10, 12), 4, (2, 3), {"stride": (3, 2), "pad": (3, 1), "dilate": (2, 3)}),
    ((17, 1, 6, 6), 2, 3, {}),
    ((33, 3, 5, 4), 2, (3, 2), {"pad": 1}),
]


@each_layout
@pytest.mark.parametrize("x, filters, kernel, how", CONVOLUTIONS)
def test_conv2d_equals_the_built_in(x, filters, kernel, how, layout, dtype, device):
    inputs = numbers(dtype, x, (filters, x[1], *pair(kernel)), (filters,))
    same(layout(ops.conv2d), convolution, *inputs, device=device, **how)


@each_layout
@pytest.mark.parametrize("x, filters, kernel, how", CONVOLUTIONS[::5])
def test_conv2d_without_bias_equals_the_built_in(x, filters, kernel, how, layout, dtype, device):
    inputs = numbers(dtype, x, (filters, x[1], *pair(kernel)))
    same(layout(ops.conv2d), convolution, *inputs, device=device, **how)


POOLINGS = [  # x, kernel, how
    ((1, 1, 1, 1), 1, {}),
    ((2, 3, 4, 4), 1, {}),
    ((2, 3, 4, 4), 2, {}),
    ((2, 3, 4, 4), 4, {}),
    ((2, 3, 6, 6), 3, {}),
    ((2, 20, 24, 24), 2, {}),
    ((1, 50, 8, 8), 2, {}),
    # not every pixel is in a window
    ((2, 3, 5, 5), 2, {}),
    ((2, 3, 7, 8), 3, {}),
    ((2, 3, 5, 4), 2, {}),
    ((2, 3, 4, 5), 2, {}),
    ((2, 3, 7, 7), 4, {"stride": 2}),
    ((2, 3, 8, 8), 3, {"stride": 2}),
    # windows of other shapes
    ((2, 3, 5, 7), (5, 7), {}),
    ((2, 3, 6, 6), (2, 3), {}),
    ((2, 3, 6, 6), (3, 2), {}),
    ((2, 3, 7, 7), (1, 4), {}),
    ((2, 3, 7, 7), (4, 1), {}),
    # overlapping
    ((2, 3, 5, 5), 2, {"stride": 1}),
    ((2, 3, 5, 5), 3, {"stride": 1}),
    ((2, 3, 7, 7), 3, {"stride": 2}),
    ((2, 3, 9, 9), 5, {"stride": 2}),
    ((2, 3, 7, 8), (3, 2), {"stride": (1, 2)}),
    ((2, 3, 8, 7), (2, 3), {"stride": (2, 1)}),
    ((2, 3, 7, 7), 2, {"stride": (1, 2)}),
    # with gaps between
    ((2, 3, 5, 5), 1, {"stride": 2}),
    ((2, 3, 7, 7), 1, {"stride": 3}),
    ((2, 3, 8, 8), 2, {"stride": 3}),
    ((2, 3, 9, 8), 2, {"stride": (3, 4)}),
    ((2, 3, 9, 8), (2, 1), {"stride": (4, 3)}),
    # padded
    ((2, 3, 4, 4), 2, {"pad": 1}),
    ((2, 3, 5, 5), 2, {"pad": 1}),
    ((2, 3, 5, 5), 3, {"pad": 1}),
    ((2, 3, 6, 6), 4, {"pad": 3}),
    ((2, 3, 5, 5), 3, {"stride": 1, "pad": 1}),
    ((2, 3, 5, 5), 3, {"stride": 2, "pad": 1}),
    ((2, 3, 6, 7), 3, {"stride": 2, "pad": 2}),
    ((2, 3, 6, 7), (2, 3), {"pad": (0, 2)}),
    ((2, 3, 6, 7), (3, 2), {"pad": (1, 0)}),
    ((2, 3, 6, 7), (2, 4), {"stride": (3, 1), "pad": (1, 3)}),
    ((2, 3, 2, 3), (4, 5), {"pad": 1}),
    ((17, 1, 5, 5), 2, {}),
    ((33, 2, 3, 4), (3, 2), {"stride": 1, "pad": 1}),
]
each_pooling = pytest.mark.parametrize("x, kernel, how", POOLINGS)


@each_layout
@each_pooling
def test_max_pool2d_equals_the_built_in(x, kernel, how, layout, dtype, device):
    same(layout(ops.max_pool2d), max_pooling, numbers(dtype, x), kernel=kernel, device=device, **how)


@each_layout
@each_pooling
def test_max_pool2d_breaks_ties_as_the_built_in_does(x, kernel, how, layout, dtype, device):
    few = np.random.default_rng(0).integers(-1, 2, x).astype(dtype)
    same(layout(ops.max_pool2d), max_pooling, few, kernel=kernel, device=device, **how)


@each_layout
@each_pooling
def test_avg_pool2d_equals_the_built_in(x, kernel, how, layout, dtype, device):
    same(layout(ops.avg_pool2d), avg_pooling, numbers(dtype, x), kernel=kernel, device=device, **how)


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("scale", [1e-3, 1, 30, 1e4])
@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
def test_activation_equals_the_built_in(name, scale, shape, dtype, device):
    x = scale * numbers(dtype, shape)
    x[..., -1] = 0  # where relu has a corner
    same(getattr(ops, name), functools.partial(nd.Activation, act_type=name), x, device=device)


@pytest.mark.parametrize("x", [(1, 1, 1, 1), (2, 3, 4, 5), (5, 1, 3, 2)])
def test_flatten_equals_the_built_in(x, dtype, device):
    same(ops.flatten, nd.flatten, numbers(dtype, x), device=device)


@pytest.mark.parametrize("x", [(1, 1, 1, 1), (2, 3, 4, 5), (5, 1, 3, 2)])
def test_layouts_are_transposes(x, dtype, device):
    same(windows.to_chwn, lambda x: x.transpose((1, 2, 3, 0)), numbers(dtype, x), device=device)
    same(windows.to_nchw, lambda x: x.transpose((3, 0, 1, 2)), numbers(dtype, x), device=device)


# Random shapes beside the tables.

small = st.integers(1, 3)
sizes = st.tuples(small, small)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(x=st.tuples(small, small, st.integers(1, 9), st.integers(1, 9)), filters=small, data=st.data())
@pytest.mark.parametrize(
    "op, builtin", [("conv2d", convolution), ("max_pool2d", max_pooling), ("avg_pool2d", avg_pooling)]
)
def test_any_windows_equal_the_built_in(op, builtin, device, x, filters, data):
    kernel, stride, pad = (data.draw(st.tuples(s, s)) for s in (st.integers(1, 5), small, st.integers(0, 3)))
    if op == "conv2d":
        dilate = data.draw(sizes)
        assume(all((k - 1) * d < size + 2 * p for k, d, size, p in zip(kernel, dilate, x[2:], pad)))
        inputs, how = numbers("float64", x, (filters, x[1], *kernel), (filters,)), {"dilate": dilate}
    else:
        assume(all(p < k <= size + 2 * p for k, size, p in zip(kernel, x[2:], pad)))  # the built-in asks for p < k
        inputs, how = [np.round(numbers("float64", x))], {"kernel": kernel}
    for layout in LAYOUTS.values():
        same(layout(getattr(ops, op)), builtin, *inputs, stride=stride, pad=pad, device=device, **how)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(x=st.lists(st.integers(1, 6), min_size=2, max_size=4), units=st.integers(1, 6))
def test_any_dense_equals_the_built_in(device, x, units):
    same(
        ops.dense, fully_connected, *numbers("float64", tuple(x), (units, int(np.prod(x[1:]))), (units,)), device=device
    )


# Dropout has its own random numbers, and so is compared by what it does to ones.


def drop(rate, shape=(50, 40), dtype="float32", device=None, dropout=ops.dropout, **how):
    """What a layer of ones becomes, and its gradient for ones from above"""
    x = nd.ones(shape, device, dtype)
    x.attach_grad()
    with autograd.record():
        y = dropout(x, rate, **how)
    y.backward()
    return y.asnumpy(), x.grad.asnumpy()


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_dropout_keeps_scales_and_drops_as_the_built_in_does(rate, dtype, device):
    ours, gradient = drop(rate, dtype=dtype, device=device)
    theirs, _ = drop(rate, dtype=dtype, device=device, dropout=lambda x, rate: nd.Dropout(x, p=rate))
    np.testing.assert_allclose(np.unique(ours), np.unique(theirs), rtol=1e-6)  # 0 and 1 / (1 - rate)
    np.testing.assert_array_equal(gradient, ours)
    spread = np.sqrt(rate * (1 - rate) / ours.size)
    assert abs((ours == 0).mean() - rate) < 5 * spread
    assert ours.dtype == dtype


@pytest.mark.parametrize("axes", [(), (0,), (1,), (2, 3), (1, 2), (0, 3)])
def test_dropout_of_axes_shares_a_draw_along_them(axes, device):
    ours, gradient = drop(0.5, (6, 7, 8, 9), device=device, axes=axes)
    theirs, _ = drop(0.5, (6, 7, 8, 9), device=device, dropout=lambda x, rate: nd.Dropout(x, p=rate, axes=axes))
    for y in (ours, theirs):
        one = y[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(4))]
        np.testing.assert_array_equal(y, np.broadcast_to(one, y.shape))
        assert 0 < (one == 0).mean() < 1
        assert all((np.diff(one, axis=axis) != 0).any() for axis in range(4) if axis not in axes)
    np.testing.assert_array_equal(gradient, ours)


def test_dropout_of_x_is_x_times_dropout_of_ones(dtype, device):
    x = nd.array(numbers(dtype, (5, 6)), device, dtype)
    with autograd.train_mode():
        y = ops.dropout(x, 0.5)
    kept = y.asnumpy() != 0
    np.testing.assert_array_equal(y.asnumpy(), 2 * x.asnumpy() * kept)


def test_dropout_draws_afresh_at_every_step(device):
    assert (drop(0.5, device=device)[0] != drop(0.5, device=device)[0]).any()


def test_dropout_is_off_in_prediction(device):
    x = nd.ones((50, 40), device)
    with autograd.record(train_mode=False):
        recorded = ops.dropout(x, 0.5)
    for y in (recorded, ops.dropout(x, 0.5)):
        np.testing.assert_array_equal(y.asnumpy(), x.asnumpy())
    np.testing.assert_array_equal(drop(0, device=device)[0], x.asnumpy())


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan")])
def test_dropout_refuses_other_rates(rate):
    with pytest.raises(ValueError, match=r"dropout rate lies in \[0, 1\), not"):
        ops.dropout(nd.ones((2, 2)), rate)


@each_layout
@pytest.mark.parametrize(
    "op, x, how, sentence",
    [
        (ops.max_pool2d, (1, 1, 4, 9), {"kernel": 5}, "a window of 5 is larger than the 4 pixels of the padded image"),
        (ops.max_pool2d, (1, 1, 9, 4), {"kernel": 5}, "a window of 5 is larger than the 4 pixels"),
        (ops.avg_pool2d, (1, 1, 2, 2), {"kernel": 5, "pad": 1}, "a window of 5 is larger than the 4 pixels"),
        (ops.max_pool2d, (1, 1, 4, 4), {"kernel": 0}, "at least 1, not 0, 0 and 1"),
        (ops.max_pool2d, (1, 1, 4, 4), {"kernel": 0, "stride": 1}, "at least 1, not 0, 1 and 1"),
        (ops.max_pool2d, (1, 1, 4, 4), {"kernel": 2, "stride": 0}, "at least 1, not 2, 0 and 1"),
        (ops.avg_pool2d, (1, 1, 4, 4), {"kernel": 2, "stride": (1, -1)}, "at least 1, not 2, -1 and 1"),
        (ops.conv2d, (1, 1, 4, 9), {"kernel": (5, 5)}, "a window of 5 is larger than the 4 pixels"),
        (ops.conv2d, (1, 1, 9, 4), {"kernel": (5, 5)}, "a window of 5 is larger than the 4 pixels"),
        (ops.conv2d, (1, 1, 4, 4), {"kernel": (3, 3), "dilate": 2}, "a window of 5 is larger than the 4 pixels"),
        (ops.conv2d, (1, 1, 2, 3), {"kernel": (5, 5), "pad": 1}, "a window of 5 is larger than the 4 pixels"),
        (ops.conv2d, (1, 1, 4, 4), {"kernel": (3, 3), "stride": 0}, "at least 1, not 3, 0 and 1"),
    ],
)
def test_windows_that_do_not_fit_are_refused(op, x, how, sentence, layout):
    if op is ops.conv2d:
        kernel = how["kernel"]
        inputs, how = [nd.ones(x), nd.ones((1, 1, *kernel))], {k: v for k, v in how.items() if k != "kernel"}
    else:
        inputs = [nd.ones(x)]
    with pytest.raises(ValueError, match=sentence):
        layout(op)(*inputs, **how)


@pytest.mark.parametrize("op", [ops.max_pool2d, ops.avg_pool2d, ops.conv2d])
def test_another_layout_is_refused(op):
    second = nd.ones((1, 1, 2, 2)) if op is ops.conv2d else 2
    with pytest.raises(ValueError, match="no layout 'CHNW'; the layouts are NCHW and CHWN"):
        op(nd.ones((1, 1, 4, 4)), second, layout="CHNW")


def test_constants_are_made_once_on_their_device():
    table = windows.constant(windows.index_table, 1, 3, 3, 2, 2, 1, 1, 1, 1, mx.cpu(1))
    assert (table.context, table.dtype) == (mx.cpu(1), np.int32)  # float32 has no odd row numbers from 2^24 on
    assert windows.constant(windows.index_table, 1, 3, 3, 2, 2, 1, 1, 1, 1, mx.cpu(1)) is table
    assert windows.constant(windows.index_table, 1, 3, 3, 2, 2, 1, 1, 1, 1, mx.cpu(0)) is not table


def test_the_index_table_of_conv2ds_docstring():
    table = windows.index_table(1, 3, 3, 2, 2, 1, 1, 1, 1, mx.cpu()).asnumpy().reshape(5, 4)
    assert table.tolist() == [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8], [9, 9, 9, 9]]
    lines = ["pixel (0, 0)   0 1 3 4", "pixel (0, 1)   1 2 4 5", "pixel (1, 0)   3 4 6 7", "pixel (1, 1)   4 5 7 8"]
    assert all(line in ops.conv2d.__doc__ for line in lines)
