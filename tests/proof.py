"""How the proofs compare: `same` for two functions, `finite_differences` for a gradient."""

from collections import defaultdict

import numpy as np

from tinymnist.backend import autograd, mx, nd

DEVICES = [mx.cpu(), *map(mx.gpu, range(min(1, mx.context.num_gpus())))]
DTYPES = ["float32", "float64"]
VARIANTS = [  # models with their defaults and with other arguments
    ("softmax", {}),
    ("mlp", {}),
    ("mlp", {"hidden": (20, 30, 10), "activation": "sigmoid"}),
    ("mlp", {"hidden": ()}),
    ("lenet", {}),
    ("lenet", {"filters": (4, 6), "kernels": (3, (5, 4)), "hidden": 30, "activation": "relu"}),
    ("lenet", {"output_activation": "tanh", "filters": (4, 6), "hidden": 30}),
    ("dropout-cnn", {}),
    ("dropout-cnn", {"rate": 0.25, "filters": (4, 6), "kernels": (3, 4), "hidden": 30, "activation": "tanh"}),
    ("cnn", {}),
    ("cnn", {"filters": (3, 5, 4), "kernels": (4, (3, 2), 1), "strides": (2, (3, 1), 2), "hidden": None, "rate": 0.5}),
]
# A sum in another order rounds differently: by a few units of 6e-8 in float32, of 1e-16 in float64.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
DIFFERENCES = defaultdict(list)  # {(function, dtype): the difference of every comparison}, for `pytest --differences`


def same(ours, builtin, *inputs, device=None, floor=0.0, **options):
    """ours(*inputs) = builtin(*inputs), and all their gradients are equal, under one random upstream gradient."""
    pairs = zip(record(ours, inputs, device, options), record(builtin, inputs, device, options))
    worst = max(difference(a, b, floor) for a, b in pairs)
    dtype = inputs[0].dtype.name
    DIFFERENCES[ours.__name__, dtype].append(worst)
    assert worst <= TOLERANCE[dtype], f"{ours.__name__}: relative difference {worst:.1e}"


def record(f, inputs, device, options):
    """y = f(*inputs), and the gradients of r·y by every input. r is random; it depends on the shape of y alone."""
    arrays = [nd.array(x, device, x.dtype) for x in inputs]
    for x in arrays:
        x.attach_grad()
        x.grad[:] = np.nan  # a gradient that is never written stays NaN, and NaN equals nothing
    with autograd.record():
        y = f(*arrays, **options)
    y.backward(nd.array(numbers(y.dtype, y.shape, seed=1), device, y.dtype))
    return [a.asnumpy() for a in (y, *(x.grad for x in arrays))]


def difference(a, b, floor=0.0):
    """The largest |a − b|, divided by the largest |b| or by `floor`, if that is larger. Infinite if there is a NaN."""
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    largest, unit = np.abs(a - b).max(), max(np.abs(b).max(), floor)
    if largest == 0:
        return 0.0
    return largest / unit if largest < np.inf and unit > 0 else np.inf


def numbers(dtype, *shapes, seed=0):
    """Arrays of normal random numbers. For one shape, the array itself."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    return arrays if len(arrays) > 1 else arrays[0]


def finite_differences(f, *inputs, step=1e-7, directions=4, device=None):
    """Compare gradient · v with (s(x + step v) − s(x − step v)) / (2 step), where s = r·f(x) with a random r.

    This is done for every input, in float64, along several random directions v. Returns the relative error, which is
    at most 1e-6. The step is as small as rounding allows, so that no corner of a ReLU and no tie of a maximum lies
    between its ends.
    """
    gradients = record(f, inputs, device, {})[1:]

    def s(*arrays):
        with autograd.train_mode():
            y = f(*(nd.array(x, device, "float64") for x in arrays)).asnumpy()
        return (numbers("float64", y.shape, seed=1) * y).sum()

    worst = 0.0
    for i, (x, gradient) in enumerate(zip(inputs, gradients)):
        before, after = inputs[:i], inputs[i + 1 :]
        vectors = numbers("float64", *[x.shape] * directions, seed=2 + i)
        slopes = [s(*before, x + step * v, *after) - s(*before, x - step * v, *after) for v in vectors]
        expected = np.array(slopes) / (2 * step)
        worst = max(worst, difference(np.array([(gradient * v).sum() for v in vectors]), expected))
    assert worst <= 1e-6, f"gradient and finite differences are {worst:.1e} apart"
    return worst
