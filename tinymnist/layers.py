"""Layers: thin classes that call the functions of ops.py. The network sets self.weight and self.bias."""

from tinymnist import ops
from tinymnist.backend import nd
from tinymnist.network import Layer, Sequential  # noqa: F401  (tm.layers.Sequential is public)
from tinymnist.windows import count_windows, pair, pooling_pairs


class Dense(Layer):
    """ops.dense: (N, I) -> (N, units)"""

    takes_vectors = True

    def __init__(self, units):
        self.units = units

    def plan(self, shape):
        return {"weight": (self.units, *shape), "bias": (self.units,)}, (self.units,)

    def __call__(self, x):
        return ops.dense(x, self.weight, self.bias)


class Conv2D(Layer):
    """ops.conv2d: (C, H, W, N) -> (filters, OH, OW, N)"""

    def __init__(self, filters, kernel, *, stride=1, pad=0, dilate=1):
        self.filters, self.kernel = filters, pair(kernel)
        self.options = {"stride": pair(stride), "pad": pair(pad), "dilate": pair(dilate)}

    def plan(self, shape):
        parameters = {"weight": (self.filters, shape[0], *self.kernel), "bias": (self.filters,)}
        return parameters, (self.filters, *count_windows(shape[1:], self.kernel, **self.options))

    def __call__(self, x):
        return ops.conv2d(x, self.weight, self.bias, **self.options, layout="CHWN")


class MaxPool2D(Layer):
    """ops.max_pool2d: (C, H, W, N) -> (C, OH, OW, N)"""

    pool = staticmethod(ops.max_pool2d)  # so self.pool(x) is ops.max_pool2d(x)

    def __init__(self, kernel, *, stride=None, pad=0):
        self.kernel, stride, pad = pooling_pairs(kernel, stride, pad)
        self.options = {"stride": stride, "pad": pad}

    def plan(self, shape):
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
        ops.dropout(nd.zeros((1,)), rate)  # raises ValueError for a wrong rate
        self.rate, self.axes = rate, (1, 2) if channels else ()  # H and W of (C, H, W, N)

    def __call__(self, x):
        return ops.dropout(x, self.rate, axes=self.axes)


class Flatten(Layer):
    """(C, H, W, N) -> (N, C · H · W), done by the network.

    It counts as a layer, so that the parameters after it have Gluon's numbers: "7.weight" in lenet.
    """

    takes_vectors = True

    def __call__(self, x):
        return x
