"""Initial values of a weight of shape (out, in) or (out, in, kh, kw). Biases start at 0, as in Gluon.

MXNet draws the numbers: `mx.random.seed(n)` before gives the same values again.
"""

import math

from tinymnist.backend import nd


def normal(shape, sigma=0.01, **where):
    """w ~ Normal(0, σ²)   `where`: ctx and dtype"""
    return nd.random.normal(0, sigma, shape=shape, **where)


def uniform(shape, scale=0.07, **where):
    """w ~ Uniform(−scale, scale)"""
    return nd.random.uniform(-scale, scale, shape=shape, **where)


def xavier(shape, magnitude=3.0, **where):
    """w ~ Uniform(−b, b), b = √(magnitude / ((fan_in + fan_out) / 2)), fan_in = in · kh · kw, fan_out = out · kh · kw

    X. Glorot, Y. Bengio 2010, where the magnitude is 3. Gluon's Xavier(rnd_type="uniform", factor_type="avg").
    """
    outputs, inputs, *kernel = shape
    bound = math.sqrt(magnitude / ((inputs + outputs) * math.prod(kernel) / 2))
    return uniform(shape, bound, **where)
