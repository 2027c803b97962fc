"""Initial values of a weight (out, in) or (out, in, kh, kw): outputs, inputs, kernel height and width.

If all weights of each layer were equal, hidden outputs would stay equal, so weights are random. Biases start at 0, as
in Gluon.

MXNet draws the numbers: after `mx.random.seed(n)` it draws the same ones again. The defaults are Gluon's.
"""

import math

from tinymnist.backend import nd


def normal(shape, sigma=0.01, **options):
    """w ~ Normal(0, σ²), σ = sigma.   `options` are ctx and dtype."""
    return nd.random.normal(0, sigma, shape=shape, **options)


def uniform(shape, scale=0.07, **options):
    """w ~ Uniform(−scale, scale)"""
    return nd.random.uniform(-scale, scale, shape=shape, **options)


def xavier(shape, magnitude=3.0, **options):
    """w ~ Uniform(−b, b), b = √(magnitude / ((fan_in + fan_out) / 2)), fan_in = in · kh · kw, fan_out = out · kh · kw

    With it, values and gradients keep about their size from layer to layer. X. Glorot, Y. Bengio 2010, where the
    magnitude is 3; as Gluon's Xavier(rnd_type="uniform", factor_type="avg").
    """
    outputs, inputs, *kernel = shape
    bound = math.sqrt(magnitude / ((inputs + outputs) * math.prod(kernel) / 2))
    return uniform(shape, bound, **options)
