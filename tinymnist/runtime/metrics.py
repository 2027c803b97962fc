"""Losses and accuracies of many batches. They stay on the device, as reading one waits until it is computed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinymnist import loss
from tinymnist.backend import mx, nd
from tinymnist.runtime.graph import Replay

READ = 100  # batches whose logits are kept on the device until they are read


class BatchResult(NamedTuple):
    """A batch's mean loss (1,), logits (n, K) and labels (n,), still on the device."""

    loss: nd.NDArray
    logits: nd.NDArray
    labels: nd.NDArray


def make_forward(model, compile=True):
    """A function of bytes (n, 1, H, W) and labels (n,) on the model's device: [mean loss (1,), logits (n, K)]."""

    def forward(images, labels):
        logits = model(images)
        return [loss.softmax_cross_entropy(logits, labels), logits]

    return Replay(forward, model.parameters.values()) if compile else forward


def evaluate_shares(forwards, shares):
    """`sum_results` of every batch. shares[i] yields batches, or None, on device i; forwards[i] runs them."""
    tables, unread = [], []
    for parts in zip(*shares):  # one batch: a part, or None, for each device
        results = []
        for forward, part in zip(forwards, parts):
            if part:
                images, labels = part
                results.append(BatchResult(*forward(images, labels), labels))
        unread.append(results)
        if len(unread) == READ:
            tables.append(sum_results(unread))
            unread = []
    return np.concatenate([*tables, sum_results(unread)])


def sum_results(batches):
    """An array (batches, 3): examples, sum of losses, number correct.

    Each batch is a list with a BatchResult, or None, for each device.
    """
    table = np.zeros((len(batches), 3))
    found = [(number, result) for number, results in enumerate(batches) for result in results if result]
    if not found:
        return table
    numbers, results = zip(*found)
    losses, logits, labels = (
        nd.concat(*(array.as_in_context(mx.cpu()) for array in column), dim=0) for column in zip(*results)
    )
    sizes = np.array([len(result.labels) for result in results])
    right = np.add.reduceat(loss.is_correct(logits, labels).asnumpy(), np.cumsum(sizes) - sizes, dtype=float)
    rows = np.stack([sizes, sizes * losses.asnumpy().astype(float), right], axis=1)  # a row for each device's part
    np.add.at(table, list(numbers), rows)
    return table


def average(table):
    """(mean loss, accuracy) over all examples in a table of sums"""
    examples, losses, correct = table.sum(axis=0)
    return float(losses / examples), float(correct / examples)
