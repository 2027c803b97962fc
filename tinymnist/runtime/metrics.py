"""Losses and accuracies of many batches. They stay on the device until many are read, as each reading waits for it."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from tinymnist import loss
from tinymnist.backend import mx, nd

TOGETHER = 100  # batches whose results are read at once


class BatchResult(NamedTuple):
    """One device's part of a batch: mean loss (1,), logits (n, K), labels (n,), still on the device."""

    loss: nd.NDArray
    logits: nd.NDArray
    labels: nd.NDArray


def evaluate_shares(forwards, batches):
    """sum_results of all batches. batches[i] yields device i's part of each, or None; forwards[i] evaluates it."""
    results = (
        [BatchResult(*forward(*part), part[1]) for forward, part in zip(forwards, parts) if part]
        for parts in zip(*batches)
    )
    tables = []
    while unread := list(itertools.islice(results, TOGETHER)):
        tables.append(sum_results(unread))
    return np.concatenate(tables)


def sum_results(batches):
    """An array (batches, 3): examples, sum of losses, number correct.

    Each batch is a list of the devices' BatchResults; None is skipped.
    """
    found = [(number, result) for number, results in enumerate(batches) for result in results if result]
    if not found:
        return np.zeros((len(batches), 3))
    numbers, results = zip(*found)
    losses, logits, labels = (
        nd.concat(*(array.as_in_context(mx.cpu()) for array in column), dim=0) for column in zip(*results)
    )
    sizes, correct = np.array([len(result.labels) for result in results]), loss.is_correct(logits, labels).asnumpy()
    columns = (numbers, sizes), (numbers, sizes * losses.asnumpy()), (np.repeat(numbers, sizes), correct)
    return np.stack([np.bincount(number, values, len(batches)) for number, values in columns], axis=1)
