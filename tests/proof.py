"""What it means here that two functions are the same, and that a gradient is right."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from tinymnist.backend import autograd, mx, nd

DEVICES = [mx.cpu(), *map(mx.gpu, range(min(1, mx.context.num_gpus())))]
DTYPES = ["float32", "float64"]
# Sums in another order round otherwise: by some units of 6e-8 in float32, of 1e-16 in float64.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
DIFFERENCES = defaultdict(
    list
)  # (function, dtype): the difference of every comparison made, for `pytest --differences`


def same(ours, builtin, *inputs, device=None, floor=0.0, **options):
    """ours(*inputs) = builtin(*inputs), and so are all gradients of them, under one random upstream gradient."""
    pairs = zip(record(ours, inputs, device, options), record(builtin, inputs, device, options))
    worst = max(difference(a, b, floor) for a, b in pairs)
    dtype = inputs[0].dtype.name
    DIFFERENCES[ours.__name__, dtype].append(worst)
    assert worst <= TOLERANCE[dtype], f"{ours.__name__}: relative difference {worst:.1e}"


def record(f, inputs, device, options):
    """f's value y, and the gradients of r·y wrt every input; r is random, and the same for the same shape of y."""
    arrays = [nd.array(x, device, x.dtype) for x in inputs]
    for x in arrays:
        x.attach_grad()
        x.grad[:] = np.nan  # a gradient that is never written stays NaN, and NaN is close to nothing
    with autograd.record():
        y = f(*arrays, **options)
    y.backward(nd.array(numbers(y.dtype, y.shape, seed=1), device, y.dtype))
    return [a.asnumpy() for a in (y, *(x.grad for x in arrays))]


def difference(a, b, floor=0.0):
    """The largest |a − b|, in units of the largest |b|, or of a larger `floor`; infinite where there is a NaN."""
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    largest, unit = np.abs(a - b).max(), max(np.abs(b).max(), floor)
    return 0.0 if largest == 0 else largest / unit if largest < np.inf and unit > 0 else np.inf


def numbers(dtype, *shapes, seed=0):
    """Arrays of normal random numbers, or the array where there is one shape"""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    return arrays if len(arrays) > 1 else arrays[0]


def finite_differences(f, *inputs, step=1e-7, directions=4, device=None):
    """The gradient of s = r·f(x), r random, times a random direction v is (s(x + step v) − s(x − step v)) / (2 step).

    So for every input, in float64, along several directions; the relative error is returned, and is at most 1e-6. The
    step is as small as rounding allows: between its ends there is then no corner of a ReLU, no tie of a maximum.
    """
    gradients = record(f, inputs, device, {})[1:]

    def s(*arrays):
        with autograd.train_mode():
            y = f(*(nd.array(x, device, "float64") for x in arrays)).asnumpy()
        return (numbers("float64", y.shape, seed=1) * y).sum()

    worst = 0.0
    for i, (x, gradient) in enumerate(zip(inputs, gradients)):
        along = numbers("float64", *[x.shape] * directions, seed=2 + i)
        moved = [
            s(*inputs[:i], x + step * v, *inputs[i + 1 :]) - s(*inputs[:i], x - step * v, *inputs[i + 1 :])
            for v in along
        ]
        worst = max(worst, difference(np.array([(gradient * v).sum() for v in along]), np.array(moved) / (2 * step)))
    assert worst <= 1e-6, f"gradient and finite differences are {worst:.1e} apart"
    return worst
