"""What a model makes of images: loss and accuracy over a split, probabilities for any images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinymnist import loss
from tinymnist.backend import mx, nd
from tinymnist.batches import Batches
from tinymnist.data import Split
from tinymnist.files import DataError
from tinymnist.graph import Replay

BATCH = 100  # of evaluation: large enough for the products, small enough for the cache


class Measured(NamedTuple):
    """The mean loss and the accuracy of `examples` examples, still on the device."""

    examples: int
    loss: nd.NDArray
    accuracy: nd.NDArray


def measured(model, compile=True):
    """A function of bytes (n, 1, H, W) and labels (n,) on the model's device: [mean loss, accuracy], as arrays (1,)."""

    def measure(images, labels):
        logits = model(images)
        return [loss.softmax_cross_entropy(logits, labels), loss.accuracy(logits, labels)]

    return Replay(measure, model.parameters.values()) if compile else measure


def evaluate(model, batches):
    """(mean loss, accuracy) over all examples of a Batches, or of a Split."""
    if isinstance(batches, Split):
        batches = Batches(batches, BATCH, model.weights.context)
    return averages(sums([[part] for part in parts(measured(model), batches)]))


def parts(measure, batches):
    """What `measure` gives for each of a Batches, unread: a list of Measured, None where there is no example."""
    return [batch and Measured(len(batch[1]), *measure(*batch)) for batch in batches]


def sums(batches):
    """(batches, 3): examples, sum of their losses, number right of batches, each a list of one Measured a share.

    The number right is a whole number, freed of float32's rounding.
    """
    table = np.zeros((len(batches), 3))
    there = [(number, part) for number, shares in enumerate(batches) for part in shares if part]
    if there:
        numbers, found = zip(*there)
        sizes = np.array([part.examples for part in found])
        losses, accuracies = (
            nd.concat(*(column.as_in_context(mx.cpu()) for column in columns), dim=0).asnumpy().astype("float64")
            for columns in list(zip(*found))[1:]
        )
        np.add.at(table, list(numbers), np.stack([sizes, sizes * losses, np.rint(sizes * accuracies)], axis=1))
    return table


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
