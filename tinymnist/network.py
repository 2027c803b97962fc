"""A network: layers one after another, with all parameters in one vector."""

import math

import numpy as np

from tinymnist import init as initializers
from tinymnist import ops, windows
from tinymnist.backend import autograd, mx, nd


class Sequential:
    """Layers of layers.py. All parameters lie in one vector, `weights`, and all gradients in another, `gradients`.

    `image` is the shape (C, H, W) of an example. `parameters` holds views of `weights` under Gluon's names: "0.weight"
    is the weight of layer 0. `init` is ("normal", σ), ("uniform", scale) or ("xavier", magnitude).
    Raises ValueError if the layers do not fit the image.
    """

    mean, std = 0.0, 1.0  # of the training pixels, if the model was trained on normalized ones

    def __init__(self, *layers, image=(1, 28, 28), init=("xavier", 3.0)):
        self.layers, self.image, self.init = layers, tuple(image), init
        self.parameters, self.weights, self.gradients = {}, None, None
        self.shapes, self.steps = {}, []  # the steps are the layers, and what changes the layout between them
        shape = self.image
        for number, layer in enumerate(layers):
            if layer.takes_rows and len(shape) == 3:
                self.steps += [windows.to_nchw, ops.flatten] if number else [ops.flatten]
                shape = (math.prod(shape),)
            parameters, shape = layer.build(shape)
            self.shapes.update({f"{number}.{name}": parameter for name, parameter in parameters.items()})
            self.steps.append(layer)
        if len(shape) == 3:
            self.steps.append(windows.to_nchw)
        self.size = sum(map(math.prod, self.shapes.values()))

    def __repr__(self):
        return f"{getattr(self, 'name', 'Sequential')} ({self.size:,} parameters)"

    def __call__(self, x):
        """x (N, C, H, W), bytes or scaled floats. Returns the logits (N, K)."""
        if not self.layers[0].takes_rows:
            x = windows.to_chwn(x)  # before scaling, as bytes are rearranged faster than floats
        x = self.scale(x) if x.dtype == np.uint8 else x
        for step in self.steps:
            x = step(x)
        return x

    def scale(self, images):
        """x = (bytes / 255 − mean) / std"""
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
