"""One device's part of a training step: the lesson's forward pass, loss and update, plain or replayed as graphs."""

from __future__ import annotations

import copy

import numpy as np

from tinymnist.backend import autograd, mx, nd
from tinymnist.datasets.mapped import HostBatches, make_batches
from tinymnist.layers import Dropout
from tinymnist.runtime.graph import replay_step
from tinymnist.runtime.metrics import BatchResult, make_forward

TAKEN = 64  # batches that are taken from the data at once: one `take` of many examples costs less than many of few
RESEED = 16  # batches after which a model with dropout gets a new seed; a run can be resumed at these batches only


class Step:
    """A model and its optimizer on one device. All devices divide each batch, and have the same weights after it.

    share = (i, n): this device has part i of the n parts of every batch. alter changes images at random.
    """

    def __init__(self, model, optimizer, split, batch_size, *, share=(0, 1), alter=None, compile=True):
        self.model, self.optimizer, self.compile, self.share = model, optimizer, compile, share
        self.batches = make_batches(split, batch_size, model.weights.context, alter)
        self.forward = make_forward(model, compile)
        self.update_hyper, self.replay_update = None, None  # hyper-parameters of the recorded update, and the update
        self.lr = nd.zeros_like(model.weights)  # used if the learning rate changes in every step
        optimizer.allocate(model.weights)

    def compute_gradient(self, batch, size):
        """Fill model.gradients with this share's part of the gradient of the mean loss over `size` examples."""
        if batch is None:  # fewer examples than shares
            self.model.gradients[:] = 0
            return None
        images, labels = batch
        with autograd.record():
            loss, logits = self.forward(images, labels)
        loss.backward()
        if len(labels) < size:
            self.model.gradients *= len(labels) / size
        return BatchResult(loss, logits, labels)

    def update(self, hyper, lr_varies=False):
        """One step of the optimizer with these hyper-parameters. lr_varies: the learning rate changes in every step."""
        weights, gradients = self.model.weights, self.model.gradients
        if not self.compile:
            self.optimizer.step(weights, gradients, **hyper)
            return
        if lr_varies:  # only for speed: an array can change without a new recording
            self.lr[:] = hyper["lr"]
            hyper = {**hyper, "lr": self.lr}
        if hyper != self.update_hyper:  # the first step, or another rate (self.lr is always the same array)
            self.update_hyper, self.replay_update = hyper, replay_step(self.optimizer, weights, gradients, hyper)
        self.replay_update()


def share_batches(batches, order, share, *, start=0, seed=()):
    """This share's part of each batch, from batch `start` on; None for a batch of which it has no example.

    `share` is (number, shares). The seed is for `alter`, which changes images at random.
    """
    number, shares = share
    size = batches.batch_size
    wholes = [order[begin : begin + size] for begin in range(start * size, len(order), size)]
    parts = [whole[len(whole) * number // shares : len(whole) * (number + 1) // shares] for whole in wholes]
    if isinstance(batches, HostBatches):  # one batch at a time, each with a seed of its own
        seeds = [(*seed, batch, number) for batch in range(start, start + len(parts))]
        return (batches.take(part, s) if len(part) else None for part, s in zip(parts, seeds))
    return take_groups(batches, parts)


def take_groups(batches, parts):
    """The examples of each part, taken from the data for many parts at once, and then cut into slices."""
    for first in range(0, len(parts), TAKEN):
        group = parts[first : first + TAKEN]
        if any(map(len, group)):
            images, labels = batches.take(np.concatenate(group))
        end = 0
        for part in group:
            begin, end = end, end + len(part)
            yield (images[begin:end], labels[begin:end]) if len(part) else None


def copy_model(model, device):
    """The same network, with the same weights, on another device"""
    twin = copy.copy(model)
    twin.allocate(device, model.weights.dtype).weights[:] = model.weights.as_in_context(device)
    return twin


def has_dropout(model):
    return any(isinstance(layer, Dropout) and layer.rate for layer in model.layers)


def reseed_dropout(seed, epoch, batch, worker):
    """Seed MXNet by epoch, batch and worker. Worker 0 gets the seed of a training in a single process."""
    numbers = (seed, epoch, batch, worker) if worker else (seed, epoch, batch)
    mx.random.seed(int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1))  # 31 bits, as MXNet takes an int
