"""Settings: the options of a run. Position: where a run stands. Epoch: the results of one epoch."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tinymnist.optim import SMALLEST
from tinymnist.runtime.machines import SHORTEST

WARMUP = 0.25  # one cycle: the learning rate rises during this share of all steps


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of a run, besides model, rule and data.

    The learning rate of epoch e = 0, 1, … is lr · lr_decay^e. With one_cycle, that of a step is this, times
    min(t / w, (1 − t) / (1 − w)), t the share of all steps that are done, w = WARMUP: it rises from 0, then falls to 0
    (L. Smith 2018).
    Raises ValueError for a value out of range.
    """

    epochs: int = 10
    batch_size: int = 100
    device: str = "cpu"
    kvstore: str = "local"  # MXNet's name for how gradients are summed; "dist_sync": over processes, see machines.py
    timeout: float = 60  # seconds; with "dist_sync", all processes end within them after one has died
    seed: int = 0
    limit: int | None = None  # train on the first `limit` images only
    normalize: bool = False  # shift and scale pixels to mean 0 and standard deviation 1 over the training set
    augment: bool = False  # shift, rotate, scale and bend training images a little, anew in every epoch
    lr_decay: float = 1.0
    one_cycle: bool = False
    log_interval: int = 100  # batches between two readings of the loss and the speed
    compile: bool = True  # replay steps as static graphs; False runs the Python code of every operation

    def __post_init__(self):
        for name, value in vars(self).items():
            if isinstance(value, np.generic):  # numpy's; JSON needs Python's
                object.__setattr__(self, name, value.item())
        for name, low in {"epochs": 0, "batch_size": 1, "seed": 0, "log_interval": 1, "limit": 1}.items():
            value = getattr(self, name)
            if (name, value) != ("limit", None) and not (type(value) is int and value >= low):
                raise ValueError(f"{name.replace('_', ' ')} must be a whole number of at least {low}, not {value!r}")
        if self.kvstore not in ("local", "dist_sync"):
            raise ValueError(f"there is no kvstore {self.kvstore!r}; they are local and dist_sync")
        if not (isinstance(self.timeout, (int, float)) and SHORTEST <= self.timeout < math.inf):
            raise ValueError(f"timeout must be {SHORTEST} seconds or more, and finite, not {self.timeout!r}")
        if not (isinstance(self.lr_decay, (int, float)) and 0 < self.lr_decay <= 1):
            raise ValueError(f"lr decay must be above 0 and at most 1, not {self.lr_decay!r}")

    def learning_rate(self, lr, epoch, batch, batches):
        """The learning rate of batch 0, 1, … of an epoch of so many batches; lr is that of the optimizer."""
        lr *= self.lr_decay**epoch
        if self.one_cycle:
            done = (epoch * batches + batch + 0.5) / (self.epochs * batches)  # half of this step counts: never 0 or 1
            lr *= min(done / WARMUP, (1 - done) / (1 - WARMUP))
        return max(lr, SMALLEST)  # smaller numbers would lose digits in float32


@dataclasses.dataclass
class Position:
    """Where a run stands, between two batches."""

    epoch: int = 0  # complete epochs
    batch: int = 0  # complete batches of the present epoch
    seconds: float = 0.0  # of training in this epoch
    seen: list = dataclasses.field(default_factory=list)  # of each batch: [examples, mean loss, number correct]
    speed: list = dataclasses.field(default_factory=list)  # images per second, between two readings of the losses


@dataclasses.dataclass(frozen=True)
class Epoch:
    """The results of an epoch. loss and train_accuracy were measured during the epoch, while the weights changed.

    test_loss and test_accuracy were measured after it. Once per log interval, `curve` has [examples seen so far, loss
    of the batch]. `speed` is that of Position.
    """

    epoch: int
    lr: float | None  # in the middle of the epoch; None: the rule has no learning rate
    loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    curve: list
    seconds: float
    speed: list
