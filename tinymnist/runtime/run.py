"""A run: the training loop of tinymnist/train.py on several devices, watched, saved and resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import time

import numpy as np

from tinymnist.batches import Split, permutation
from tinymnist.checks import check_split, check_training
from tinymnist.datasets import augment
from tinymnist.datasets.load import Data, load
from tinymnist.datasets.mapped import make_batches, pixel_statistics
from tinymnist.idx import DataError
from tinymnist.optim import Optimizer
from tinymnist.runtime import checkpoint, devices
from tinymnist.runtime.metrics import evaluate_shares, sum_results
from tinymnist.runtime.progress import Progress
from tinymnist.runtime.settings import Epoch, Position, Settings
from tinymnist.runtime.step import RESEED, Step, copy_model, has_dropout, reseed_dropout, share_batches
from tinymnist.train import BATCH

AHEAD = 8  # batches that Python may run ahead of the device: enough to keep it busy, few enough to react to Ctrl-C


class Diverged(ArithmeticError):
    """A loss or a weight is not finite. The sentence names the epoch, the batch and any learning rate."""


class Run:
    """A training: model, optimizer, data, settings; its position and its history, a list of Epoch.

    Raises DataError for data that do not suit the model, ValueError for other arguments.
    """

    def __init__(self, model, optimizer, data, settings):
        self.model, self.settings = model, settings
        self.position, self.history = Position(), []
        self.stop = False  # set it to end the run at the next batch from which it can be resumed
        self.stop_agreed = False  # by all workers: LossReader sets it when one has `stop` set
        self.id = os.urandom(8).hex()  # tells this run's checkpoints from those of others
        self.locked = (), None  # a directory's two names, as given and real, and its check
        self.reader = None  # the LossReader of this epoch
        contexts = devices.find_devices(settings.device)
        if model.weights is None:
            model.initialize(settings.seed, contexts[0])
        elif model.weights.context != contexts[0]:
            weights = model.weights.as_in_context(contexts[0])
            model.allocate(contexts[0], weights.dtype).weights[:] = weights
        data = load(data) if isinstance(data, (str, os.PathLike)) else data
        if not isinstance(data, Data):
            raise DataError(f"data must be what tm.load returns, not {type(data).__name__}")
        train = check_training(model, optimizer, data.train, f"the training data of {data.name}")
        if settings.one_cycle and "lr" not in optimizer.hyper:
            raise ValueError(f"{optimizer.name} has no learning rate, so it cannot have one cycle of it")
        self.data = data._replace(train=train, test=check_split(model, data.test, f"the test data of {data.name}"))
        self.train_split = Split(*(array[: settings.limit] for array in train))
        if settings.normalize:
            model.mean, model.std = pixel_statistics(self.train_split.images)
            if not model.std:
                raise DataError(f"{data.name}: all pixels are equal; they cannot be normalized")
        self.exchange = devices.Exchange(contexts, settings.kvstore, settings.timeout)
        models = [model, *(copy_model(model, context) for context in contexts[1:])]
        optimizers = [Optimizer(optimizer.name, **optimizer.hyper) for _ in contexts]  # their state is this run's own
        self.optimizer = optimizers[0]
        alter, size = augment.alter if settings.augment else None, settings.batch_size
        self.steps = [
            Step(twin, rule, self.train_split, size, share=share, alter=alter, compile=settings.compile)
            for twin, rule, share in zip(models, optimizers, self.exchange.shares())
        ]
        batch_size = BATCH * len(contexts) * self.exchange.workers  # BATCH for each device
        self.test_batches = [make_batches(self.data.test, batch_size, context) for context in contexts]

    def __repr__(self):
        where = f"{self.position.epoch} of {self.settings.epochs} epochs"
        last = f", test accuracy {self.history[-1].test_accuracy:.4f}" if self.history else ""
        return f"{self.model!r}, by {self.optimizer!r}: {where}{last}"

    def save(self, directory):
        """Write a checkpoint into `directory`, from which `resume` continues, bit for bit if `can_resume_here`.

        Returns its path. With several workers, worker 0 does it, and only after a batch at which all read the losses.
        Raises DataError if it could not be written completely, ValueError at another batch.
        """
        if self.reader and self.exchange.workers == 1:
            self.reader.read()  # completes position.seen, if on_batch saves
        if self.reader and self.reader.unread:
            raise ValueError("several workers can save only every log_interval batches, or by save_every")
        if self.exchange.rank > 0:
            return None
        with self.lock(directory) as check:
            return checkpoint.save_checkpoint(directory, self, check)

    @contextlib.contextmanager
    def lock(self, directory):
        """Keep other runs from saving into `directory`, unless it is None. Yields the check of lock_directory.

        If `train` holds the lock already, `save` gets the same check.
        """
        names, check = self.locked
        if directory is None or self.exchange.rank > 0:
            yield None
        elif os.fspath(directory) in names or os.path.realpath(directory) in names:
            yield check
        else:
            with checkpoint.lock_run_directory(directory, self.id) as check:
                before = self.locked
                self.locked = (os.fspath(directory), os.path.realpath(directory)), check
                try:
                    yield check
                finally:
                    self.locked = before

    @functools.cached_property
    def fingerprint(self):
        return self.data.fingerprint

    @property
    def batch_count(self):
        """How many batches an epoch has"""
        return math.ceil(len(self.train_split.labels) / self.settings.batch_size)

    def current_hyper(self, batch):
        """The hyper-parameters for a batch of this epoch"""
        hyper = dict(self.optimizer.hyper)
        if "lr" in hyper:
            hyper["lr"] = self.settings.learning_rate(hyper["lr"], self.position.epoch, batch, self.batch_count)
        return hyper

    @property
    def task(self):
        """What all workers must have in common, as text"""
        state = checkpoint.describe_run(self)
        for own in ("id", "source", "where", "seen", "seconds", "speed", "history"):  # may differ between workers
            del state[own]
        state["settings"].update(device=len(self.steps), timeout=None)
        return json.dumps([self.model.size, state], sort_keys=True)

    @property
    def stopping(self):
        """`stop`, or with several workers what they have agreed on"""
        return self.stop if self.exchange.workers == 1 else self.stop_agreed

    def can_resume_here(self):
        """Whether a run saved before this batch continues bit for bit: see RESEED."""
        return not has_dropout(self.model) or self.position.batch % RESEED == 0

    def train(self, *, on_batch=None, on_epoch=None, save=None, save_every=0):
        """Train until settings.epochs, or until `stop` is set.

        Checkpoints go into the directory `save`: one before the first batch, one after every epoch, one when the run
        stops, and one every `save_every` batches, or at the next one from which the run can be resumed.
        on_batch(run, examples) is called after every batch, on_epoch(run) after every epoch.
        Raises Diverged if a loss or a weight is not finite, DataError if saving fails.
        """
        if save_every < 0:
            raise ValueError(f"save every must be a whole number of at least 0, not {save_every!r}")
        vectors = [[step.model.weights, *step.optimizer.state] for step in self.steps]
        self.exchange.synchronize_start(self.task, zip(*vectors))
        with self.lock(save):
            if save and not checkpoint.list_checkpoints(save):
                self.save(save)
            while self.position.epoch < self.settings.epochs and not self.stopping:
                complete = self.train_epoch(on_batch, save, save_every)
                if complete:
                    self.finish_epoch()
                if save:
                    self.save(save)
                if complete and on_epoch:
                    on_epoch(self)
        self.exchange.finish()
        return self

    def train_epoch(self, on_batch, save, save_every):
        """The rest of this epoch. Returns False if the run was stopped before its end."""
        settings, position = self.settings, self.position
        n = len(self.train_split.labels)
        order, seed = permutation(settings.seed, position.epoch, n), (settings.seed, position.epoch)
        self.reader, saved = LossReader(self), position.batch
        batches = [share_batches(s.batches, order, s.share, start=position.batch, seed=seed) for s in self.steps]
        for parts in zip(*batches):  # one batch, divided among the devices
            if self.can_resume_here():
                due = save_every and position.batch - saved >= save_every
                if due:
                    saved = position.batch
                    self.reader.read()  # completes position.seen, which is saved; all workers must do it
                if self.stopping:
                    self.reader.read()
                    return False  # train saves
                if due and save:
                    self.save(save)
                if has_dropout(self.model):
                    reseed_dropout(*seed, position.batch, self.exchange.rank)
            size = min(settings.batch_size, n - position.batch * settings.batch_size)
            # forward and backward
            results = [step.compute_gradient(part, size) for step, part in zip(self.steps, parts)]
            # the sum over all devices and workers
            self.exchange.sum([step.model.gradients for step in self.steps])
            # update
            hyper = self.current_hyper(position.batch)
            for step in self.steps:
                step.update(hyper, settings.one_cycle)
            position.batch += 1
            self.reader.after_batch(results)
            if on_batch:
                on_batch(self, size)
        self.reader.read()
        return True

    def finish_epoch(self):
        """Evaluate the test set, add this epoch to the history, and move the position to the next."""
        position, order = self.position, np.arange(len(self.data.test.labels))
        batches = [share_batches(b, order, step.share) for b, step in zip(self.test_batches, self.steps)]
        table = self.exchange.total(evaluate_shares([step.forward for step in self.steps], batches))
        tested, test_loss, test_correct = table.sum(axis=0).tolist()
        sizes, losses, correct = np.array(position.seen).T
        examples = position.epoch * len(self.train_split.labels) + np.cumsum(sizes)
        curve = [[int(n), loss] for n, loss in zip(examples, losses.tolist())]
        interval = self.settings.log_interval
        epoch = Epoch(
            epoch=position.epoch + 1,
            lr=self.current_hyper(self.batch_count // 2).get("lr"),
            loss=float(np.average(losses, weights=sizes)),
            train_accuracy=float(correct.sum() / sizes.sum()),
            test_loss=test_loss / tested,
            test_accuracy=test_correct / tested,
            curve=curve[interval - 1 :: interval],
            seconds=round(position.seconds, 3),
            speed=position.speed,
        )
        self.history.append(epoch)
        self.position = Position(epoch=position.epoch + 1)


class LossReader:
    """Brings the losses of the last batches from the device into run.position.seen, once per log interval.

    All workers read at the same batches. There they also agree on stopping: if one was told to, all do.
    """

    def __init__(self, run):
        self.run, self.unread = run, []
        self.began = time.perf_counter() - run.position.seconds  # as if this epoch had never been interrupted

    def after_batch(self, results):
        self.unread.append(results)
        if len(self.unread) >= AHEAD:  # Python stays at most so many batches ahead of the device
            for result in filter(None, self.unread[-AHEAD]):
                result.loss.wait_to_read()
        if self.run.position.batch % self.run.settings.log_interval == 0:
            self.read()

    def read(self):
        """Bring all unread losses into position.seen. Raises Diverged if a loss or a weight is not finite."""
        run, position = self.run, self.run.position
        if not self.unread:
            return
        table = run.exchange.total(sum_results(self.unread))
        self.unread = []
        run.stop_agreed = bool(run.exchange.total(np.array([run.stop], float)).any())
        for examples, loss, correct in table.tolist():
            if not math.isfinite(loss):
                batch = len(position.seen) + 1
                self.diverge(batch, f"the loss of epoch {position.epoch + 1}, batch {batch} is {loss}")
            position.seen.append([int(examples), loss / examples, int(correct)])
        if not np.isfinite(run.model.weights.asnumpy()).all():  # no loss was computed after the last update
            batch = len(position.seen)
            self.diverge(batch, f"after epoch {position.epoch + 1}, batch {batch} weights are not finite")
        before = position.seconds
        position.seconds = time.perf_counter() - self.began
        position.speed.append(round(table[:, 0].sum() / (position.seconds - before), 1))

    def diverge(self, batch, what):
        lr = self.run.current_hyper(batch - 1).get("lr")
        raise Diverged(what if lr is None else f"{what}, the learning rate {lr:g}; try a smaller one")


def fit(model, optimizer, data, *, progress=False, on_batch=None, on_epoch=None, save=None, save_every=0, **settings):
    """Train `model` (initialized if it is not) with a fresh copy of `optimizer` on `data`. Returns the Run.

    progress=True prints a line per epoch, and a progress bar on a terminal. `settings` are those of Settings, the
    other arguments those of Run.train.
    """
    run = Run(model, optimizer, data, Settings(**settings))
    with Progress(run, quiet=not progress, on_batch=on_batch, on_epoch=on_epoch) as bar:
        return run.train(on_batch=bar.on_batch, on_epoch=bar.on_epoch, save=save, save_every=save_every)


def resume(directory, data=None, *, model=None, **changes):
    """The Run saved in `directory`, from its newest undamaged checkpoint. It continues as if it had not stopped.

    `data` must be what the run began with; by default it is loaded from the same place. `changes` are settings: epochs,
    device, kvstore (local by default), timeout, log_interval and compile may change, others may not; epochs may not if
    the run has one_cycle. `model` is needed for a model that is not one of tinymnist's own. Raises DataError if there
    is no usable checkpoint, or for other data; ValueError for a setting that cannot change.
    """
    model, vectors, state = checkpoint.load(directory, model)
    before = Settings(**state["settings"])
    settings = dataclasses.replace(before, **{"kvstore": "local", **changes})
    free = {"device", "kvstore", "timeout", "log_interval", "compile"}
    for name in set(changes) - (free if before.one_cycle else {"epochs", *free}):
        old, new = getattr(before, name), getattr(settings, name)
        if old != new:
            raise ValueError(
                f"{directory} began with {name.replace('_', ' ')} {old!r} and cannot continue with {new!r}"
            )
    epochs_begun = state["epoch"] + 1 if state["batch"] else state["epoch"]
    if epochs_begun > settings.epochs:
        raise ValueError(f"{directory} is in epoch {epochs_begun} already and cannot end after {settings.epochs}")
    run = Run(model, Optimizer(state["rule"], **state["hyper"]), data or state["where"], settings)
    if state["data"] != run.fingerprint:
        raise DataError(f"{directory} began with other data ({state['source']}) than {run.data.source}")
    for step in run.steps:
        for own, vector in zip(step.optimizer.state, vectors):
            own[:] = vector.as_in_context(own.context)
    run.id, run.position = state["id"], Position(**{f.name: state[f.name] for f in dataclasses.fields(Position)})
    run.history = [Epoch(**epoch) for epoch in state["history"]]
    return run
