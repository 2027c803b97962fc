"""Layers: thin classes that own parameters and call the functions of ops.py. Sequential chains them to a network.

Inside a network, an example is either an image or a row of numbers. A batch of images is (C, H, W, N), see windows.py;
a batch of rows is (N, I).
"""

from __future__ import annotations

import copy
import math

import numpy as np

from tinymnist import init as initializers
from tinymnist import ops, windows
from tinymnist.backend import autograd, mx, nd
from tinymnist.windows import count_windows, pair


class Layer:
    """A layer says which parameters it needs, and turns a batch into another. `shape` is that of one example."""

    takes_rows = False  # True: Sequential flattens images before this layer

    def parameter_shapes(self, shape):
        return {}

    def output_shape(self, shape):
        return shape


class Dense(Layer):
    """ops.dense with `units` outputs: (N, I) -> (N, units)"""

    takes_rows = True

    def __init__(self, units):
        self.units = units

    def parameter_shapes(self, shape):
        return {"weight": (self.units, *shape), "bias": (self.units,)}

    def output_shape(self, shape):
        return (self.units,)

    def __call__(self, x):
        return ops.dense(x, self.weight, self.bias)


class Conv2D(Layer):
    """ops.conv2d with `filters` outputs: (C, H, W, N) -> (filters, OH, OW, N)"""

    def __init__(self, filters, kernel, *, stride=1, pad=0, dilate=1):
        self.filters, self.kernel = filters, pair(kernel)
        self.options = {"stride": pair(stride), "pad": pair(pad), "dilate": pair(dilate)}

    def parameter_shapes(self, shape):
        return {"weight": (self.filters, shape[0], *self.kernel), "bias": (self.filters,)}

    def output_shape(self, shape):
        sizes = zip(shape[1:], self.kernel, *self.options.values())
        return (self.filters, *(count_windows(n + 2 * p, (k - 1) * d + 1, step) for n, k, step, p, d in sizes))

    def __call__(self, x):
        return ops.conv2d(x, self.weight, self.bias, **self.options, layout="CHWN")


class MaxPool2D(Layer):
    """ops.max_pool2d: (C, H, W, N) -> (C, OH, OW, N)"""

    pool = staticmethod(ops.max_pool2d)

    def __init__(self, kernel, *, stride=None, pad=0):
        self.kernel, self.pad = pair(kernel), pair(pad)
        self.stride = self.kernel if stride is None else pair(stride)

    def output_shape(self, shape):
        sizes = zip(shape[1:], self.kernel, self.stride, self.pad)
        return (shape[0], *(count_windows(n + 2 * p, k, step) for n, k, step, p in sizes))

    def __call__(self, x):
        return self.pool(x, self.kernel, stride=self.stride, pad=self.pad, layout="CHWN")


class AvgPool2D(MaxPool2D):
    """ops.avg_pool2d: as MaxPool2D, with the mean"""

    pool = staticmethod(ops.avg_pool2d)


class Activation(Layer):
    """ops.relu, ops.tanh or ops.sigmoid, by name: any shape"""

    def __init__(self, name):
        functions = {"relu": ops.relu, "tanh": ops.tanh, "sigmoid": ops.sigmoid}
        if name not in functions:
            raise ValueError(f"there is no activation {name!r}; the activations are {', '.join(functions)}")
        self.function = functions[name]

    def __call__(self, x):
        return self.function(x)


class Dropout(Layer):
    """ops.dropout: any shape. channels=True drops whole channels of images."""

    def __init__(self, rate, *, channels=False):
        ops.dropout(nd.zeros((1,)), rate)  # raises ValueError for a rate out of range
        self.rate, self.axes = rate, (1, 2) if channels else ()

    def __call__(self, x):
        return ops.dropout(x, self.rate, axes=self.axes)


class Flatten(Layer):
    """Images become rows: (C, H, W, N) -> (N, C · H · W). Sequential does it before every layer that takes rows."""

    takes_rows = True

    def __call__(self, x):
        return x


def flatten_images(x):
    """(C, H, W, N) -> (N, C · H · W)"""
    return ops.flatten(windows.to_nchw(x))


class Sequential:
    """Layers one after another. All parameters lie in one vector, `weights`, and all gradients in `gradients`.

    `image` is the shape (C, H, W) of an example. `parameters` holds views of `weights` under Gluon's names: "0.weight"
    is the weight of layer 0. `init` is ("normal", σ), ("uniform", scale) or ("xavier", magnitude).
    Raises ValueError if the layers do not fit the image.
    """

    mean, std = 0.0, 1.0  # of the training pixels, if the model was trained on normalized ones

    def __init__(self, *layers, image=(1, 28, 28), init=("xavier", 3.0)):
        self.layers, self.image, self.init = layers, tuple(image), init
        self.steps, self.shapes = [], {}
        self.parameters, self.weights, self.gradients = {}, None, None
        shape = (math.prod(self.image),) if layers[0].takes_rows else self.image
        for number, layer in enumerate(layers):
            if layer.takes_rows and len(shape) == 3:
                self.steps.append(flatten_images)
                shape = (math.prod(shape),)
            self.steps.append(layer)
            self.shapes.update({f"{number}.{name}": s for name, s in layer.parameter_shapes(shape).items()})
            shape = layer.output_shape(shape)
        if len(shape) == 3:
            self.steps.append(windows.to_nchw)
        self.size = sum(map(math.prod, self.shapes.values()))
        self.has_dropout = any(isinstance(layer, Dropout) for layer in layers)

    def __repr__(self):
        return f"{getattr(self, 'name', 'Sequential')}: {self.size:,} parameters in {len(self.layers)} layers"

    def __call__(self, x):
        """x (N, C, H, W), bytes or scaled floats. Returns the logits (N, K)."""
        if not self.layers[0].takes_rows:
            x = windows.to_chwn(x)  # before scaling, as bytes are rearranged faster than floats
        x = self.scale(x)
        if self.layers[0].takes_rows:
            x = ops.flatten(x)
        for step in self.steps:
            x = step(x)
        return x

    def scale(self, images):
        """x = (bytes / 255 − mean) / std; floats are taken as scaled already"""
        if images.dtype != np.uint8:
            return images
        x = nd.cast(images, dtype=np.dtype(self.weights.dtype).name) * (1 / (255 * self.std))
        return x - self.mean / self.std if self.mean else x

    def allocate(self, device=None, dtype="float32"):
        """Give every layer its parameters, all zero, as views of one vector."""
        self.weights, self.gradients = (nd.zeros((self.size,), ctx=device or mx.cpu(), dtype=dtype) for _ in range(2))
        begin = 0
        for name, shape in self.shapes.items():
            end = begin + math.prod(shape)
            value, gradient = (vector[begin:end].reshape(shape) for vector in (self.weights, self.gradients))
            autograd.mark_variables([value], [gradient])
            number, attribute = name.split(".")
            setattr(self.layers[int(number)], attribute, value)
            self.parameters[name] = value
            begin = end
        return self

    def initialize(self, seed=0, device=None, dtype="float32"):
        """Allocate the parameters and draw the weights. Biases stay 0."""
        self.allocate(device, dtype)
        mx.random.seed(seed)
        draw, number = getattr(initializers, self.init[0]), self.init[1]
        for name, value in self.parameters.items():
            if name.endswith("weight"):
                value[:] = draw(value.shape, number, ctx=value.context, dtype=dtype)
        return self

    def copy_to(self, device):
        """The same network, with the same weights, on another device."""
        twin = Sequential(*map(copy.copy, self.layers), image=self.image, init=self.init)
        twin.mean, twin.std = self.mean, self.std
        twin.allocate(device, self.weights.dtype)
        twin.weights[:] = self.weights.as_in_context(device)
        return twin
