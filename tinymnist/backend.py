"""MXNet, imported in this one place: `from tinymnist.backend import autograd, mx, nd`."""

import numpy

numpy.bool = bool  # MXNet 1.9.1 asks for it at import; numpy 1.24 to 1.26 no longer have it

import mxnet as mx  # noqa: E402
from mxnet import autograd, nd  # noqa: E402

__all__ = ["autograd", "mx", "nd"]
