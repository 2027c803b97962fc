"""A model on one device, with its optimizer, its share of every batch, and its compiled step."""

from __future__ import annotations

import functools

from tinymnist.backend import autograd
from tinymnist.batches import Batches
from tinymnist.runtime.graph import replay_in_place
from tinymnist.runtime.metrics import Measured, measured


class Replica:
    """Does its share of the work on each batch; all replicas have the same weights after each step."""

    def __init__(self, model, optimizer, split, batch_size, *, share=0, shares=1, alter=None, compile=True):
        self.model, self.optimizer, self.compile = model, optimizer, compile
        self.batches = Batches(split, batch_size, model.weights.context, share=share, shares=shares, alter=alter)
        self.measure = measured(model, compile)
        self.updates = {}
        optimizer.prepare(model.weights)

    def gradient(self, batch, size):
        """Leaves in model.gradients this share's part of the gradient of the mean loss over `size` examples."""
        if batch is None:  # fewer examples than shares
            self.model.gradients[:] = 0
            return None
        images, labels = batch
        with autograd.record():
            loss, logits = self.measure(images, labels)
        loss.backward()
        if len(labels) < size:
            self.model.gradients *= len(labels) / size
        return Measured(loss, logits, labels)

    def update(self, hyper):
        """One step of the rule, with these hyper-parameters."""
        vectors = [self.model.weights, self.model.gradients, *self.optimizer.state]
        rule = functools.partial(self.optimizer.rule, **hyper)
        if not self.compile:
            return rule(*vectors)
        key = tuple(hyper.items())
        if key not in self.updates:  # recorded again where the learning rate falls: 1 ms
            self.updates = {key: replay_in_place(rule, vectors)}
        return self.updates[key]()
