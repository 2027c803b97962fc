"""One device's part of a training step: the lesson's forward pass, loss and update, plain or replayed as graphs."""

from __future__ import annotations

import copy

import numpy as np

from tinymnist.backend import autograd, mx, nd
from tinymnist.datasets.mapped import HostBatches, make_batches
from tinymnist.layers import Dropout
from tinymnist.loss import softmax_cross_entropy
from tinymnist.runtime.graph import Replay, replay_step
from tinymnist.runtime.metrics import BatchResult

GROUP = 64  # batches that are taken from the data at once: one large `take` costs less than many small ones
RESEED = 16  # after so many batches a model with dropout gets a new seed; only there it can be resumed bit for bit


class Step:
    """A model and its optimizer on one device. Each batch is divided among all devices; all have equal weights.

    share = (i, n): this device has part i of the n parts of every batch. alter changes images at random.
    """

    def __init__(self, model, optimizer, split, batch_size, *, share=(0, 1), alter=None, compile=True):
        self.model, self.optimizer, self.compile, self.share = model, optimizer, compile, share
        self.batches = make_batches(split, batch_size, model.weights.context, alter)
        self.forward = Replay(self.run_model, model.parameters.values()) if compile else self.run_model
        self.replay_update, self.update_hyper = None, None  # the recorded update, and its hyper-parameters
        self.lr = nd.zeros_like(model.weights)  # used if the learning rate changes in every step
        optimizer.allocate(model.weights)

    def run_model(self, images, labels):
        """[mean loss (1,), logits (n, K)] of images, bytes (n, 1, H, W), and labels (n,)"""
        logits = self.model(images)
        return [softmax_cross_entropy(logits, labels), logits]

    def compute_gradient(self, batch, size):
        """Fill model.gradients with this share's part of the gradient of the mean loss over `size` examples."""
        if batch is None:  # fewer examples than shares
            self.model.gradients[:] = 0
            return None
        images, labels = batch
        with autograd.record():
            loss, logits = self.forward(images, labels)
            # `loss` is the mean over this share. The losses of all shares add up to the mean over the batch.
            share_loss = loss if len(labels) == size else loss * (len(labels) / size)
        share_loss.backward()
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

    share = (i, n), as in Step. The seed is for `alter`, which changes images at random.
    """
    (i, n), size = share, batches.batch_size
    wholes = [order[begin : begin + size] for begin in range(start * size, len(order), size)]
    parts = [whole[len(whole) * i // n : len(whole) * (i + 1) // n] for whole in wholes]
    if isinstance(batches, HostBatches):  # one batch at a time, each with a seed of its own
        return (batches.take(part, (*seed, batch, i)) if len(part) else None for batch, part in enumerate(parts, start))
    return take_groups(batches, parts)


def take_groups(batches, parts):
    """The examples of each part: taken for GROUP parts at once, then cut into slices."""
    for first in range(0, len(parts), GROUP):
        group = parts[first : first + GROUP]
        if any(map(len, group)):
            images, labels = batches.take(np.concatenate(group))
        end = 0
        for part in group:
            begin, end = end, end + len(part)
            yield (images[begin:end], labels[begin:end]) if len(part) else None


def copy_model(model, device):
    """The same network, with the same weights, on another device"""
    twin = copy.copy(model)  # a deep copy, see network.py
    twin.allocate(device, model.weights.dtype).weights[:] = model.weights.as_in_context(device)
    return twin


def has_dropout(model):
    return any(isinstance(layer, Dropout) and layer.rate for layer in model.layers)


def reseed_dropout(*numbers):
    """Seed MXNet by the run's seed, the epoch, the batch and the worker."""
    mx.random.seed(int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1))  # 31 bits, as MXNet takes an int
