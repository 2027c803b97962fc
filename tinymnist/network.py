"""A network: layers one after another, with all parameters in one vector.

Inside a network, an example is either an image or a vector. A batch of images is (C, H, W, N), see windows.py; a batch
of vectors is (N, I).
"""

import copy
import math
import numbers

import numpy as np

from tinymnist import init as initializers
from tinymnist import ops, windows
from tinymnist.backend import autograd, mx, nd


class Layer:
    """A layer: `plan` says which parameters it needs, `__call__` turns one batch into another. See layers.py."""

    takes_vectors = False  # True: the network flattens images before this layer

    def plan(self, shape):
        """Takes the shape of an example. Returns the shapes of the parameters, and the shape of the result.

        Dense(10).plan((784,)) is {"weight": (10, 784), "bias": (10,)}, (10,).
        """
        return {}, shape


class Sequential:
    """Layers one after another. All parameters lie in one vector, `weights`, all their gradients in `gradients`.

    `image` is the shape (C, H, W) of an example. `parameters` holds views of `weights` under Gluon's names: "0.weight"
    is the weight of layer 0. `init` is ("normal", σ), ("uniform", scale) or ("xavier", magnitude).
    Raises ValueError if the layers do not fit the image, or a number is out of range.
    """

    name = "Sequential"
    mean, std = 0.0, 1.0  # of pixels in [0, 1], for scale(); tm.fit(…, normalize=True) sets them

    def __init__(self, *layers, image=(1, 28, 28), init=("xavier", 3.0)):
        if len(image) != 3:
            raise ValueError(f"image must be (channels, height, width), such as (1, 28, 28), not {image}")
        if len(init) != 2 or init[0] not in ("normal", "uniform", "xavier"):
            raise ValueError(f'init must be ("normal", σ), ("uniform", scale) or ("xavier", magnitude), not {init!r}')
        self.layers, self.image, self.init = layers, tuple(image), init
        self.parameters, self.weights, self.gradients = {}, None, None
        self.shapes = {}  # of the parameters, by name
        shape = self.image
        for number, layer in enumerate(layers):
            if layer.takes_vectors:
                shape = (math.prod(shape),)
            parameter_shapes, shape = layer.plan(shape)
            for name, sizes in parameter_shapes.items():
                if not all(isinstance(n, numbers.Integral) and n > 0 for n in sizes):
                    raise ValueError(f"layer {number} cannot have a {name} of the shape {sizes}")
                self.shapes[f"{number}.{name}"] = sizes
        self.classes = shape[0]  # the last layer returns a number for each class
        self.size = sum(map(math.prod, self.shapes.values()))

    def __repr__(self):
        return f"{self.name} ({self.size:,} parameters)"

    def __call__(self, x):
        """x (N, C, H, W), bytes or scaled floats. Returns logits (N, K), or images if the last layer returns them."""
        x = self.scale(x) if x.dtype == np.uint8 else x
        x = ops.flatten(x) if self.layers[0].takes_vectors else windows.to_chwn(x)  # flatten before any transposing
        for layer in self.layers:
            if layer.takes_vectors and x.ndim == 4:
                x = ops.flatten(windows.to_nchw(x))
            x = layer(x)
        return windows.to_nchw(x) if x.ndim == 4 else x

    def scale(self, images):
        """x = (bytes / 255 − mean) / std"""
        x = nd.cast(images, dtype=self.weights.dtype) * (1 / (255 * self.std))
        return x - self.mean / self.std if self.mean else x

    def allocate(self, device=None, dtype="float32"):
        """Give every layer its parameters, all zero, as views of one vector."""
        self.weights = nd.zeros((self.size,), ctx=device or mx.cpu(), dtype=dtype)
        self.gradients = nd.zeros_like(self.weights)
        begin = 0
        for name, shape in self.shapes.items():
            end = begin + math.prod(shape)
            value = self.weights[begin:end].reshape(shape)
            gradient = self.gradients[begin:end].reshape(shape)
            autograd.mark_variables([value], [gradient])  # backward writes into gradient
            number, attribute = name.split(".")
            setattr(self.layers[int(number)], attribute, value)  # such as layers[0].weight = value
            self.parameters[name] = value
            begin = end
        return self

    def initialize(self, seed=0, device=None, dtype="float32"):
        """Allocate the parameters and draw the weights. Biases stay 0."""
        self.allocate(device, dtype)
        if seed >= 1 << 31:  # MXNet's seeds have 31 bits: hash a larger one
            seed = int(np.random.SeedSequence(seed).generate_state(1)[0] >> 1)
        mx.random.seed(seed)
        draw, argument = getattr(initializers, self.init[0]), self.init[1]
        for name, value in self.parameters.items():
            if name.endswith("weight"):
                value[:] = draw(value.shape, argument, ctx=value.context, dtype=dtype)
        return self

    def __copy__(self):
        return copy.deepcopy(self)  # two networks cannot share layers

    def __setstate__(self, state):
        """Called by deepcopy and pickle. They turn views into separate arrays, so allocate makes the views again."""
        vars(self).update(state)
        if self.weights is not None:
            weights = self.weights
            self.allocate(weights.context, weights.dtype).weights[:] = weights
