"""What a model makes of images: loss and accuracy over a split, probabilities for any images."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from tinymnist import loss
from tinymnist.backend import mx, nd
from tinymnist.batches import Batches
from tinymnist.datasets.load import Split
from tinymnist.runtime.files import DataError
from tinymnist.runtime.graph import Replay

BATCH = 100  # of evaluation: large enough for the products, small enough for the cache
READ = 100  # batches of which logits are kept until they are brought from the device


class Measured(NamedTuple):
    """Of a batch the mean loss (1,), the logits (n, K) and the labels (n,), still on the device."""

    loss: nd.NDArray
    logits: nd.NDArray
    labels: nd.NDArray


def measured(model, compile=True):
    """A function of bytes (n, 1, H, W) and labels (n,) on the model's device: [mean loss (1,), logits (n, K)]."""

    def measure(images, labels):
        logits = model(images)
        return [loss.softmax_cross_entropy(logits, labels), logits]

    return Replay(measure, model.parameters.values()) if compile else measure


def evaluate(model, batches):
    """(mean loss, accuracy) over all examples of a Batches, or of a Split."""
    if isinstance(batches, Split):
        batches = Batches(batches, BATCH, model.weights.context)
    return averages(tested([measured(model)], [batches]))


def tested(measures, shares):
    """`sums` of every batch: shares[i] is a Batches on device i, measured by measures[i]."""
    seen = zip(*(parts(measure, batches) for measure, batches in zip(measures, shares)))
    some = iter(lambda: list(itertools.islice(seen, READ)), [])
    return np.concatenate([sums([]), *map(sums, some)])


def parts(measure, batches):
    """What `measure` gives for each batch of a Batches, unread: a Measured, None where there is no example."""
    return (batch and Measured(*measure(*batch), batch[1]) for batch in batches)


def sums(batches):
    """(batches, 3): examples, sum of their losses, number right of batches, each a list of one Measured a share."""
    there = [(number, part) for number, shares in enumerate(batches) for part in shares if part]
    if not there:
        return np.zeros((len(batches), 3))
    numbers, found = zip(*there)
    losses, logits, labels = (
        nd.concat(*(array.as_in_context(mx.cpu()) for array in column), dim=0) for column in zip(*found)
    )
    sizes = np.array([len(part.labels) for part in found])
    columns = [
        (numbers, sizes),
        (numbers, sizes * losses.asnumpy().astype("float64")),
        (np.repeat(numbers, sizes), loss.correct(logits, labels).asnumpy()),
    ]
    return np.stack([np.bincount(at, of, len(batches)) for at, of in columns], axis=1)


def averages(table):
    """(mean loss, accuracy) over all examples in a table of sums."""
    examples, losses, right = table.sum(axis=0)
    return float(losses / examples), float(right / examples)


def predict(model, images, *, compile=True):
    """Class probabilities of bytes (N, H, W) -> (N, K), rows sum to 1.   DataError: another size than the model's"""
    check_size(model, images, "the images")
    batches = Batches(Split(images, np.zeros(len(images), np.uint8)), BATCH, model.weights.context)

    def probabilities(images):
        return [loss.softmax(model(images))]

    function = Replay(probabilities, model.parameters.values()) if compile else probabilities
    return np.concatenate([part[0].asnumpy() for part in [function(x) for x, _ in batches]])


def check_size(model, images, what):
    """DataError where images (N, H, W) are not of the size that the model takes."""
    if images.ndim != 3 or images.shape[1:] != tuple(model.image[1:]) or model.image[0] != 1:
        (_, height, width), size = model.image, "×".join(map(str, images.shape[1:]))
        raise DataError(f"{what} are {size} pixels; the model takes {height}×{width}")
