"""tinymnist: handwritten-digit classifiers trained on MXNet ndarray arithmetic and autograd, every part written out.

Read in this order: ops, loss, init, optim, layers, models (what is trained, and by which rule); files, idx, data,
batches (on what); graph, replica, evaluate, train (how); checkpoint, devices, machines (how it goes on, and where);
recipes, plot, pictures (what for).
"""

from tinymnist import idx, init, layers, loss, models, ops, optim
from tinymnist.datasets.load import load
from tinymnist.models import dropout_cnn, lenet, mlp, softmax_regression
from tinymnist.optim import Optimizer
from tinymnist.runtime import checkpoint
from tinymnist.runtime.files import DataError
from tinymnist.runtime.metrics import evaluate, predict
from tinymnist.runtime.run import Diverged, Epoch, Run, Settings, fit, resume

__all__ = [
    "DataError", "Diverged", "Epoch", "Optimizer", "Run", "Settings", "checkpoint", "dropout_cnn", "evaluate", "fit",
    "idx", "init", "layers", "lenet", "load", "loss", "mlp", "models", "ops", "optim", "predict", "resume",
    "softmax_regression",
]  # fmt: skip
