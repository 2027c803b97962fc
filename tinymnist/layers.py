"""Layers: thin classes that own parameters and call the functions of ops.py. network.py makes networks of them.

Inside a network, an example is either an image or a row of numbers. A batch of images is (C, H, W, N), see windows.py;
a batch of rows is (N, I).
"""

from tinymnist import ops
from tinymnist.backend import nd
from tinymnist.network import Sequential as Sequential  # so that this module offers all that a network needs
from tinymnist.windows import count_windows, pair


class Layer:
    """A layer declares its parameters, and turns one batch into another."""

    takes_rows = False  # True: the network flattens images before this layer

    def build(self, shape):
        """For an example of this shape: the shapes of the parameters, and the shape of the result."""
        return {}, shape


class Dense(Layer):
    """ops.dense: (N, I) -> (N, units)"""

    takes_rows = True

    def __init__(self, units):
        self.units = units

    def build(self, shape):
        return {"weight": (self.units, *shape), "bias": (self.units,)}, (self.units,)

    def __call__(self, x):
        return ops.dense(x, self.weight, self.bias)


class Conv2D(Layer):
    """ops.conv2d: (C, H, W, N) -> (filters, OH, OW, N)"""

    def __init__(self, filters, kernel, *, stride=1, pad=0, dilate=1):
        self.filters, self.kernel = filters, pair(kernel)
        self.options = {"stride": pair(stride), "pad": pair(pad), "dilate": pair(dilate)}

    def build(self, shape):
        parameters = {"weight": (self.filters, shape[0], *self.kernel), "bias": (self.filters,)}
        return parameters, (self.filters, *count_windows(shape[1:], self.kernel, **self.options))

    def __call__(self, x):
        return ops.conv2d(x, self.weight, self.bias, **self.options, layout="CHWN")


class MaxPool2D(Layer):
    """ops.max_pool2d: (C, H, W, N) -> (C, OH, OW, N)"""

    pool = staticmethod(ops.max_pool2d)

    def __init__(self, kernel, *, stride=None, pad=0):
        self.kernel, self.options = (
            pair(kernel),
            {"stride": pair(kernel if stride is None else stride), "pad": pair(pad)},
        )

    def build(self, shape):
        return {}, (shape[0], *count_windows(shape[1:], self.kernel, **self.options))

    def __call__(self, x):
        return self.pool(x, self.kernel, **self.options, layout="CHWN")


class AvgPool2D(MaxPool2D):
    """ops.avg_pool2d: (C, H, W, N) -> (C, OH, OW, N)"""

    pool = staticmethod(ops.avg_pool2d)


class Activation(Layer):
    """ops.relu, ops.tanh or ops.sigmoid, by name; any shape"""

    def __init__(self, name):
        if name not in ("relu", "tanh", "sigmoid"):
            raise ValueError(f"there is no activation {name!r}; the activations are relu, tanh, sigmoid")
        self.function = getattr(ops, name)

    def __call__(self, x):
        return self.function(x)


class Dropout(Layer):
    """ops.dropout; any shape. channels=True drops whole channels of images."""

    def __init__(self, rate, *, channels=False):
        ops.dropout(nd.zeros((1,)), rate)  # raises ValueError for a rate out of range
        self.rate, self.axes = rate, (1, 2) if channels else ()

    def __call__(self, x):
        return ops.dropout(x, self.rate, axes=self.axes)


class Flatten(Layer):
    """Images become rows, (C, H, W, N) -> (N, C · H · W), as before every layer that takes rows."""

    takes_rows = True

    def __call__(self, x):
        return x
