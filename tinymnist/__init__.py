"""tinymnist: handwritten-digit classifiers trained with MXNet ndarray arithmetic and autograd.

The files in this folder are a lesson. Read them in this order: idx, batches (the data); windows, ops (the operations);
loss; init, network, layers, models (the network); optim (the update rules); train (the loop). You can skip backend
(imports MXNet) and checks (checks arguments). The subpackages are for use rather than for reading: runtime (fast,
resumable, distributed training), datasets, experiments.

MXNet's words that one must know:
    nd                         arrays, much like numpy's. x[a:b] and x.reshape are views; x[:, a:b] can be a copy.
    ctx, context, device       one thing: where an array is, CPU or GPU. x.as_in_context(d) is x on d.
    nd.take(x, i)              x[i], 0 ≤ i < len(x). nd.concat(x, y, dim=1): np.concatenate([x, y], 1). nd.dot: @.
    nd.cast(x, dtype=t)        x.astype(t). nd.pick(x, i): from each row n the number x[n, i[n]].
    nd.slice(x, a, b, s)       x[a[0]:b[0]:s[0], a[1]:b[1]:s[1], …]. nd.slice_axis: along one axis. x.split: np.split.
    x.asnumpy(), x.asscalar()  x as numpy's array, as a number. MXNet computes in the background; these two wait for it.
    mark_variables([w], [g])   backward writes w's gradient into g. attach_grad() makes a g; with "null" it stays 0.
    autograd.record()          MXNet writes down the operations in this block; is_training() is true: dropout is on.
    loss.backward()            goes back through them and fills the g of each marked w.
    stop_gradient(x)           x, through which no gradient flows.
"""

from tinymnist import idx, init, layers, loss, models, ops, optim
from tinymnist.batches import Batches, Split
from tinymnist.datasets.load import Data, load
from tinymnist.idx import DataError
from tinymnist.models import cnn, dropout_cnn, lenet, mlp, softmax_regression
from tinymnist.optim import Optimizer
from tinymnist.runtime.run import Diverged, Run, fit, resume
from tinymnist.runtime.settings import Epoch, Settings
from tinymnist.train import evaluate, predict, train

__version__ = "1.1.0"
__all__ = [
    "Batches", "Data", "DataError", "Diverged", "Epoch", "Optimizer", "Run", "Settings", "Split", "cnn",
    "dropout_cnn", "evaluate", "fit", "idx", "init", "layers", "lenet", "load", "loss", "mlp", "models", "ops", "optim",
    "predict", "resume", "softmax_regression", "train",
]  # fmt: skip
