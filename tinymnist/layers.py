"""Layers: thin classes that own parameters and call the functions of ops.py; Sequential puts one after another.

Inside a network images are (C, H, W, N): see ops.py.
"""

from __future__ import annotations

import copy
import math

import numpy as np

from tinymnist import init as initializers
from tinymnist import ops
from tinymnist.backend import autograd, mx, nd


class Layer:
    """build(shape) takes the shape of one example and gives that of its result; `shapes` names the parameters."""

    shapes: dict[str, tuple] = {}  # noqa: RUF012

    def build(self, shape):
        return shape


class Dense(Layer):
    """ops.dense with `units` outputs"""

    def __init__(self, units):
        self.units = units

    def build(self, shape):
        self.shapes = {"weight": (self.units, math.prod(shape)), "bias": (self.units,)}
        return (self.units,)

    def __call__(self, x):
        return ops.dense(ops.from_chwn(x) if x.ndim == 4 else x, self.weight, self.bias)


class Conv2D(Layer):
    """ops.conv2d with `filters` outputs"""

    def __init__(self, filters, kernel, *, stride=1, pad=0, dilate=1):
        self.filters, self.kernel = filters, ops.pair(kernel)
        self.options = {"stride": ops.pair(stride), "pad": ops.pair(pad), "dilate": ops.pair(dilate)}

    def build(self, shape):
        channels, *size = shape
        self.shapes = {"weight": (self.filters, channels, *self.kernel), "bias": (self.filters,)}
        sizes = zip(size, self.kernel, *self.options.values())
        return (self.filters, *(ops.fits(s + 2 * p, (k - 1) * d + 1, step) for s, k, step, p, d in sizes))

    def __call__(self, x):
        return ops.conv2d(x, self.weight, self.bias, **self.options, layout="CHWN")


class MaxPool2D(Layer):
    """ops.max_pool2d"""

    pool = staticmethod(ops.max_pool2d)

    def __init__(self, kernel, *, stride=None, pad=0):
        self.kernel, self.stride, self.pad = ops.pair(kernel), ops.pair(stride or kernel), ops.pair(pad)

    def build(self, shape):
        channels, *size = shape
        return (channels, *(ops.fits(s + 2 * p, k, t) for s, p, k, t in zip(size, self.pad, self.kernel, self.stride)))

    def __call__(self, x):
        return self.pool(x, self.kernel, stride=self.stride, pad=self.pad, layout="CHWN")


class AvgPool2D(MaxPool2D):
    """ops.avg_pool2d"""

    pool = staticmethod(ops.avg_pool2d)


class Activation(Layer):
    """ops.relu, ops.tanh or ops.sigmoid, by name"""

    def __init__(self, name):
        if name not in ("relu", "tanh", "sigmoid"):
            raise ValueError(f"there is no activation {name!r}; the activations are relu, tanh, sigmoid")
        self.function = getattr(ops, name)

    def __call__(self, x):
        return self.function(x)


class Dropout(Layer):
    """ops.dropout; of whole channels with channels=True"""

    def __init__(self, rate, *, channels=False):
        ops.dropout(nd.zeros((1,)), rate)  # refuses a rate out of range
        self.rate, self.axes = rate, (1, 2) if channels else ()

    def __call__(self, x):
        return ops.dropout(x, self.rate, axes=self.axes)


class Flatten(Layer):
    """ops.flatten"""

    def build(self, shape):
        return (math.prod(shape),)

    def __call__(self, x):
        return ops.flatten(ops.from_chwn(x)) if x.ndim == 4 else x


class Sequential:
    """Layers one after another. All parameters lie in one vector, `weights`, all gradients in another, `gradients`.

    `image` is the shape (C, H, W) of an example. `parameters` holds views of `weights`, named as Gluon names them:
    "0.weight" is the weight of layer 0. ValueError: layers that do not fit the image.
    """

    mean, std = 0.0, 1.0  # of the pixels that it was trained on, where they are normalised

    def __init__(self, *layers, image=(1, 28, 28), init=("xavier", 3.0)):
        self.layers, self.image, self.init = layers, tuple(image), init
        self.parameters, self.weights, self.gradients = {}, None, None
        shape = self.image
        for layer in layers:
            shape = layer.build(shape)
        self.size = sum(math.prod(s) for layer in layers for s in layer.shapes.values())
        self.random = any(isinstance(layer, Dropout) for layer in layers)

    def __call__(self, x):
        """x (N, C, H, W), bytes or what `scaled` makes of them -> logits (N, K)"""
        images, flat = x.ndim == 4, isinstance(self.layers[0], (Dense, Flatten))
        if images and not flat:
            x = ops.to_chwn(x)
        if x.dtype == np.uint8:  # only now: bytes are laid out anew in a quarter of the time that floats take
            x = self.scaled(x)
        if images and flat:  # and only now: in a graph its own results are reshaped at no cost, its inputs copied
            x = ops.flatten(x)
        for layer in self.layers:
            x = layer(x)
        return ops.from_chwn(x) if x.ndim == 4 else x

    def scaled(self, images):
        """x = (bytes / 255 − mean) / std"""
        x = nd.cast(images, dtype=np.dtype(self.weights.dtype).name) * (1 / (255 * self.std))
        return x - self.mean / self.std if self.mean else x

    def allocate(self, device=None, dtype="float32"):
        """Gives every layer its parameters, all zero, as views of one vector."""
        self.weights, self.gradients = (nd.zeros((self.size,), ctx=device or mx.cpu(), dtype=dtype) for _ in range(2))
        begin = 0
        for number, layer in enumerate(self.layers):
            for name, shape in layer.shapes.items():
                end = begin + math.prod(shape)
                value, gradient = (v[begin:end].reshape(shape) for v in (self.weights, self.gradients))
                autograd.mark_variables([value], [gradient])
                setattr(layer, name, value)
                self.parameters[f"{number}.{name}"] = value
                begin = end
        return self

    def initialize(self, seed=0, device=None, dtype="float32"):
        """Allocates, and draws the weights by `init`: ("normal", σ), ("uniform", scale) or ("xavier", magnitude)."""
        self.allocate(device, dtype)
        mx.random.seed(seed)
        draw, number = getattr(initializers, self.init[0]), self.init[1]
        for name, value in self.parameters.items():
            if name.endswith("weight"):
                value[:] = draw(value.shape, number, ctx=value.context, dtype=dtype)
        return self

    def replica(self, device):
        """The same network, with the same weights, on another device."""
        twin = Sequential(*map(copy.copy, self.layers), image=self.image, init=self.init)
        twin.mean, twin.std = self.mean, self.std
        twin.allocate(device, self.weights.dtype)
        twin.weights[:] = self.weights.as_in_context(device)
        return twin
