"""The training loop: a Run, what decides it, how it goes on, and what it leaves behind."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import time

import numpy as np

from tinymnist.backend import mx
from tinymnist.batches import Batches, permutation, statistics
from tinymnist.datasets import augment
from tinymnist.datasets.load import Split, load
from tinymnist.optim import SMALLEST, Optimizer
from tinymnist.runtime import checkpoint, devices, machines
from tinymnist.runtime.files import DataError
from tinymnist.runtime.metrics import BATCH, averages, check_size, sums, tested
from tinymnist.runtime.step import Replica

AHEAD = 8  # Python may run this many batches ahead of the device: it is kept busy, and Ctrl-C is felt
SEEDED = 16  # a model with dropout is seeded anew every so many batches, and can stop there and go on to the last bit


class Diverged(ArithmeticError):
    """A loss or a weight that is not finite, in a sentence that names the epoch, the batch and the learning rate."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides a run besides model, rule and data. The learning rate of epoch e = 0, 1, … is lr · lr_decay^e.

    ValueError: a value out of range.
    """

    epochs: int = 10
    batch_size: int = 100
    device: str = "cpu"
    kvstore: str = "local"  # or "dist_sync": every batch is shared with other machines, see machines.py
    timeout: float = 60  # seconds, after which "dist_sync" takes another process for gone
    seed: int = 0
    limit: int | None = None  # train on the first so many images only
    normalize: bool = False  # pixels shifted and scaled to mean 0 and standard deviation 1 over the training set
    augment: bool = False  # training images shifted, turned and scaled a little, anew every epoch
    lr_decay: float = 1.0
    log_interval: int = 100  # batches between two looks at the loss and the speed
    compile: bool = True  # steps replayed as static graphs; False runs the Python code of every operation

    def __post_init__(self):
        for name, low in {"epochs": 0, "batch_size": 1, "seed": 0, "log_interval": 1}.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise ValueError(f"{name.replace('_', ' ')} must be a whole number from {low} on, not {value!r}")
        if self.limit is not None and (not isinstance(self.limit, int) or self.limit < 1):
            raise ValueError(f"limit must be a whole number from 1 on, not {self.limit!r}")
        if self.kvstore not in ("local", "dist_sync"):
            raise ValueError(f"there is no kvstore {self.kvstore!r}; they are local and dist_sync")
        if not machines.SHORTEST <= self.timeout < math.inf:
            raise ValueError(f"timeout must be {machines.SHORTEST} seconds or more, and finite, not {self.timeout!r}")
        if not 0 < self.lr_decay <= 1:
            raise ValueError(f"lr decay must be above 0 and at most 1, not {self.lr_decay!r}")


@dataclasses.dataclass(frozen=True)
class Epoch:
    """After an epoch: loss and train_accuracy over the examples as they were seen, test_… over the test set after it.

    `curve` has [examples seen since the beginning, loss of that batch], `speed` images per second, each interval one.
    """

    epoch: int
    lr: float | None
    loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    curve: list
    seconds: float
    speed: list


class Run:
    """A training: model, rule, data, settings; where it stands (epoch, batch) and what it has seen (history, seen).

    DataError: images that are not the model's size, labels that are not its classes or not one for each image.
    ValueError: a device that is not there.
    """

    POSITION = ("epoch", "batch", "seen", "seconds", "speed")  # what of it changes from batch to batch

    def __init__(self, model, optimizer, data, settings):
        self.data, self.optimizer, self.settings = data, optimizer, settings
        self.id, self.home = os.urandom(8).hex(), None  # for the checkpoints: whose they are, where they go
        self.epoch, self.batch, self.history = 0, 0, []
        self.seen, self.seconds, self.speed = [], 0.0, []  # of this epoch: [examples, mean loss, number right] a batch
        self.stop = False  # set it, and the run ends at the next batch from which it can go on
        self.agreed = False  # on that, between many machines: they do so where they sum their losses
        self.train_split = Split(*(array[: settings.limit] for array in data.train))
        contexts = devices.named(settings.device)
        if model.weights is None:
            model.initialize(settings.seed, contexts[0])
        elif model.weights.context != contexts[0]:
            weights = model.weights.as_in_context(contexts[0])
            model.allocate(contexts[0], weights.dtype).weights[:] = weights
        for split in (data.train, data.test):
            check(model, split, data.name)
        if settings.normalize:
            model.mean, model.std = statistics(self.train_split.images)
            if not model.std:
                raise DataError(f"{data.name}: all pixels are alike; there is no deviation to normalise them by")
        self.model = model
        self.exchange = devices.Exchange(contexts, settings.kvstore, settings.timeout)
        models = [model, *(model.replica(context) for context in contexts[1:])]
        rules = [optimizer, *(Optimizer(optimizer.name, **optimizer.hyper) for _ in contexts[1:])]
        self.replicas = [
            Replica(
                *(twin, rule, self.train_split, settings.batch_size),
                share=share,
                shares=shares,
                alter=augment.altered if settings.augment else None,
                compile=settings.compile,
            )
            for (share, shares), twin, rule in zip(self.exchange.shares(), models, rules)
        ]
        self.tests = [
            Batches(data.test, BATCH * shares, context, share=share, shares=shares)
            for (share, shares), context in zip(self.exchange.shares(), contexts)
        ]

    def save(self, directory):
        """Writes a checkpoint, from which `resume` goes on; of many machines worker 0 does.

        DataError: it could not be written whole
        """
        if self.exchange.rank > 0:
            return None
        with checkpoint.held(directory, self):
            return checkpoint.save(directory, self)

    @functools.cached_property
    def fingerprint(self):
        return self.data.fingerprint

    @property
    def hyper(self):
        """The rule's hyper-parameters in this epoch."""
        hyper = dict(self.optimizer.hyper)
        if "lr" in hyper:
            hyper["lr"] = max(hyper["lr"] * self.settings.lr_decay**self.epoch, SMALLEST)
        return hyper

    @property
    def task(self):
        """What all workers must have in common, as text."""
        whole = checkpoint.description(self)
        for own in ("id", "source", "where", *Run.POSITION[2:], "history"):
            del whole[own]
        whole["settings"].update(device=len(self.replicas), timeout=None)
        return json.dumps([self.epoch, self.batch, self.model.size, whole], sort_keys=True)

    @property
    def stopping(self):
        return self.stop if self.exchange.workers == 1 else self.agreed

    def train(self, *, on_batch=None, on_epoch=None, save=None, save_every=0):
        """Trains until settings.epochs, or until `stop` is set.

        Into the directory `save` goes a checkpoint before the first batch, after every epoch, where the run stops, and
        every `save_every` batches. on_batch(run, examples) comes after every batch, on_epoch(run) after every epoch.
        Diverged: a loss or a weight is not finite; what was saved before stays. DataError: it cannot be saved.
        """
        if save_every < 0:
            raise ValueError(f"save every must be a whole number from 0 on, not {save_every!r}")
        self.exchange.meet(
            self.task,
            zip(*([replica.model.weights, *replica.optimizer.state] for replica in self.replicas)),
        )
        with checkpoint.held(save, self) if save and self.exchange.rank == 0 else contextlib.nullcontext():
            if save and not checkpoint.checkpoints(save):
                self.save(save)
            while self.epoch < self.settings.epochs and not self.stopping:
                ended = self.run_batches(on_batch, save, save_every)
                if ended:
                    self.finish_epoch()
                if save:
                    self.save(save)
                if ended and on_epoch:
                    on_epoch(self)
        self.exchange.part()
        return self

    def run_batches(self, on_batch, save, save_every):
        """The batches that are left of this epoch; False where `stop` came before the last."""
        settings, hyper, n = self.settings, self.hyper, len(self.train_split.labels)
        began, saved, unread = time.perf_counter() - self.seconds, self.batch, []
        order, seed = permutation(settings.seed, self.epoch, n), (settings.seed, self.epoch)
        for shares in zip(*(replica.batches.epoch(order, self.batch, seed) for replica in self.replicas)):
            if not self.model.random or self.batch % SEEDED == 0:  # from here the run could go on
                due = save and save_every and self.batch - saved >= save_every
                if due or self.stopping:
                    self.read(unread, began)
                if self.stopping:
                    return False
                if due:
                    self.save(save)
                    saved = self.batch
                if self.model.random:
                    own = filter(None, [self.exchange.rank])  # so that workers do not drop the same
                    mx.random.seed(int(np.random.SeedSequence((*seed, self.batch, *own)).generate_state(1)[0] >> 1))
            size = min(settings.batch_size, n - self.batch * settings.batch_size)
            unread.append([replica.gradient(share, size) for replica, share in zip(self.replicas, shares)])
            self.exchange.sum([replica.model.gradients for replica in self.replicas])
            for replica in self.replicas:
                replica.update(hyper)
            self.batch += 1
            if len(unread) >= AHEAD:
                for part in filter(None, unread[-AHEAD]):
                    part.loss.wait_to_read()
            if self.batch % settings.log_interval == 0:
                self.read(unread, began)
            if on_batch:
                on_batch(self, size)
        self.read(unread, began)
        return True

    def read(self, unread, began):
        """Brings losses and numbers right of the last batches from the device to `seen`; Diverged where not finite."""
        if not unread:
            return
        table = self.exchange.total(np.append(sums(unread), [[self.stop, 0, 0]], axis=0))
        self.agreed, first = bool(table[-1, 0]), len(self.seen)
        for examples, loss, right in table[:-1].tolist():
            if not math.isfinite(loss):
                raise self.diverged(f"the loss of epoch {self.epoch + 1}, batch {len(self.seen) + 1} is {loss}")
            self.seen.append([int(examples), loss / examples, int(right)])
        if not np.isfinite(self.model.weights.asnumpy()).all():  # the last step can do that behind a finite loss
            raise self.diverged(f"after epoch {self.epoch + 1}, batch {len(self.seen)} weights are not finite")
        unread.clear()
        before, self.seconds = self.seconds, time.perf_counter() - began
        self.speed.append(round(sum(size for size, *_ in self.seen[first:]) / (self.seconds - before), 1))

    def diverged(self, what):
        at = f", the learning rate {self.hyper['lr']:g}; try a smaller one" if "lr" in self.hyper else ""
        return Diverged(what + at)

    def finish_epoch(self):
        """Adds this epoch to the history, with the test set's loss and accuracy, and goes to the start of the next."""
        sizes, losses, correct = np.array(self.seen).T
        examples = (self.epoch * len(self.train_split.labels) + np.cumsum(sizes)).astype(int).tolist()
        interval = self.settings.log_interval
        table = tested([replica.measure for replica in self.replicas], self.tests)
        self.history.append(
            Epoch(
                self.epoch + 1,
                self.hyper.get("lr"),
                float(np.average(losses, weights=sizes)),
                float(correct.sum() / sizes.sum()),
                *averages(self.exchange.total(table)),
                [[n, value] for n, value in zip(examples, losses.tolist())][interval - 1 :: interval],
                round(self.seconds, 3),
                self.speed,
            )
        )
        self.epoch, self.batch, self.seen, self.seconds, self.speed = self.epoch + 1, 0, [], 0.0, []


def check(model, split, name):
    """DataError where images are no bytes of the model's size, labels none of its classes or not one per image."""
    images, labels = split
    check_size(model, images, f"the images of {name}")
    if images.dtype != np.uint8:
        raise DataError(f"{name}: the images are {images.dtype.name}; they must be bytes from 0 to 255, uint8")
    if not 0 < len(images) == len(labels):
        raise DataError(f"{name}: {len(images):,} images and {len(labels):,} labels; every image needs one label")
    classes = [*model.parameters.values()][-1].shape[0]
    wrong = ~((labels >= 0) & (labels < classes) & (labels == np.floor(labels)))  # so NaN is wrong too
    if wrong.any():
        raise DataError(
            f"{name}: there is a label {labels[wrong][0]}; this model's are whole numbers from 0 to {classes - 1}"
        )


def fit(model, optimizer, data, *, on_batch=None, on_epoch=None, save=None, save_every=0, **settings):
    """Trains a model by a rule on data -> Run. The settings are those of Settings; all else is as in Run.train."""
    run = Run(model, optimizer, data, Settings(**settings))
    return run.train(on_batch=on_batch, on_epoch=on_epoch, save=save, save_every=save_every)


def resume(directory, data=None, *, model=None, **changes):
    """The Run of a directory, as its newest whole checkpoint has it; it goes on to the last bit as if never stopped.

    `data` is what it was begun on, by default from where it came then. `changes` are settings; epochs, device,
    kvstore (local if it is not given), timeout, log_interval and compile may change, no others. A model that is not one
    of tinymnist's own is to be given.
    DataError: no checkpoint, none that is whole, another version, other data. ValueError: a setting that cannot change.
    """
    saved, vectors, rest = checkpoint.load(directory, model)
    before = Settings(**rest["settings"])
    settings = dataclasses.replace(before, **{"kvstore": "local", **changes})
    for name in set(changes) - {"epochs", "device", "kvstore", "timeout", "log_interval", "compile"}:
        was, wanted = getattr(before, name), getattr(settings, name)
        if was != wanted:
            what = name.replace("_", " ")
            raise ValueError(f"{directory} was begun with {what} {was!r} and cannot go on with {wanted!r}")
    if rest["epoch"] + (rest["batch"] > 0) > settings.epochs:
        raise ValueError(f"{directory} is in epoch {rest['epoch'] + 1} already and cannot end after {settings.epochs}")
    data = data or load(rest["where"])
    if rest["data"] != data.fingerprint:
        raise DataError(f"{directory} was begun on other data ({rest['source']}) than {data.source}")
    run = Run(saved, Optimizer(rest["rule"], **rest["hyper"]), data, settings)
    for replica in run.replicas:
        for own, vector in zip(replica.optimizer.state, vectors):
            own[:] = vector.as_in_context(own.context)
    for name in ("id", *Run.POSITION):
        setattr(run, name, rest[name])
    run.history = [Epoch(**epoch) for epoch in rest["history"]]
    return run
