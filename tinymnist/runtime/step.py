"""One device's part of a training step: the lesson's forward pass, loss and update, plain or replayed as graphs."""

from __future__ import annotations

import numpy as np

from tinymnist.backend import autograd, mx
from tinymnist.datasets.mapped import HostBatches, make_batches
from tinymnist.runtime.graph import replay_step
from tinymnist.runtime.metrics import BatchResult, make_forward

RESEED = 16  # a model with dropout gets a new seed every so many batches; there it can stop, and resume bit for bit


class Step:
    """A model and its optimizer on one device. All devices divide each batch, and have the same weights after it."""

    def __init__(self, model, optimizer, split, batch_size, *, share=(0, 1), alter=None, compile=True):
        self.model, self.optimizer, self.compile, self.share = model, optimizer, compile, share
        self.batches = make_batches(split, batch_size, model.weights.context, alter)
        self.forward = make_forward(model, compile)
        self.updates = {}
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

    def update(self, hyper):
        """One step of the optimizer with these hyper-parameters."""
        weights, gradients = self.model.weights, self.model.gradients
        if not self.compile:
            return self.optimizer.step(weights, gradients, **hyper)
        key = tuple(hyper.items())
        if key not in self.updates:  # also when the learning rate changes
            self.updates = {key: replay_step(self.optimizer, weights, gradients, hyper)}
        return self.updates[key]()


def share_batches(batches, order, share, *, start=0, seed=()):
    """This share's part of the batches from number `start` on; None for a batch of which it has no example.

    `share` is (number, shares). Altered images draw from numpy's generator of (*seed, number of the batch, share).
    """
    number, shares = share
    numbers = range(start, len(batches))
    parts = []
    for i in numbers:
        whole = order[i * batches.batch_size : (i + 1) * batches.batch_size]
        parts.append(whole[len(whole) * number // shares : len(whole) * (number + 1) // shares])
    if isinstance(batches, HostBatches):
        return batches.gather(parts, [(*seed, i, number) for i in numbers])
    return batches.gather(parts)


def reseed_dropout(seed, epoch, batch, worker):
    """Seed MXNet's generator from the position, as its state cannot be saved. Each worker drops other units."""
    numbers = (seed, epoch, batch, worker) if worker else (seed, epoch, batch)
    mx.random.seed(int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1))
