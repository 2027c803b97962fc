"""Losses and accuracies of many batches. They stay on the device, as reading one waits until it is computed."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from tinymnist import loss
from tinymnist.backend import mx, nd
from tinymnist.runtime.graph import Replay

TOGETHER = 100  # batches whose results are read at once


class BatchResult(NamedTuple):
    """One device's part of a batch: mean loss (1,), logits (n, K), labels (n,), still on the device."""

    loss: nd.NDArray
    logits: nd.NDArray
    labels: nd.NDArray


def make_forward(model, compile=True):
    """A function of images, bytes (n, 1, H, W), and labels (n,). It returns [mean loss (1,), logits (n, K)]."""

    def forward(images, labels):
        logits = model(images)
        return [loss.softmax_cross_entropy(logits, labels), logits]

    return Replay(forward, model.parameters.values()) if compile else forward


def evaluate_shares(forwards, shares):
    """sum_results of all batches. shares[i] yields device i's part of each batch, or None; forwards[i] evaluates it."""

    def run(parts):
        return [BatchResult(*forward(*part), part[1]) for forward, part in zip(forwards, parts) if part]

    results, tables = map(run, zip(*shares)), []
    while unread := list(itertools.islice(results, TOGETHER)):
        tables.append(sum_results(unread))
    return np.concatenate(tables)


def sum_results(batches):
    """An array (batches, 3): examples, sum of losses, number correct.

    Each batch is a list of the devices' BatchResults; None is skipped.
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
    starts = np.cumsum(sizes) - sizes
    right = np.add.reduceat(loss.is_correct(logits, labels).asnumpy(), starts, dtype=float)
    rows = np.stack([sizes, sizes * losses.asnumpy().astype(float), right], axis=1)  # a row for each device's part
    np.add.at(table, list(numbers), rows)
    return table


def average(table):
    """(mean loss, accuracy) over all examples in a table of sums"""
    examples, losses, correct = table.sum(axis=0)
    return float(losses / examples), float(correct / examples)
