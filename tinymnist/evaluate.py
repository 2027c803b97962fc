"""What a model makes of images: loss and accuracy over a split, probabilities for any images."""

from __future__ import annotations

import numpy as np

from tinymnist import loss
from tinymnist.backend import nd
from tinymnist.batches import Batches
from tinymnist.data import Split
from tinymnist.files import DataError
from tinymnist.graph import Replay

BATCH = 200  # of evaluation: large enough for the products, small enough for the cache


def measured(model, compile=True):
    """A function of bytes (n, 1, H, W) and labels (n,) on the model's device: [mean loss, accuracy], as arrays (1,)."""

    def measure(images, labels):
        logits = model(model.scaled(images))
        return [loss.softmax_cross_entropy(logits, labels), loss.accuracy(logits, labels)]

    return Replay(measure, model.parameters.values()) if compile else measure


def evaluate(model, batches, measure=None):
    """(mean loss, accuracy) over all examples of a Batches, or of a Split."""
    if isinstance(batches, Split):
        batches = Batches(batches, BATCH, model.weights.context)
    measure = measure or measured(model)
    parts = [(len(labels), *measure(images, labels)) for images, labels in filter(None, batches)]
    sizes, *results = zip(*parts)
    losses, accuracies = (nd.concat(*result, dim=0).asnumpy().astype("float64") for result in results)
    return float(np.average(losses, weights=sizes)), right(sizes, accuracies) / sum(sizes)


def right(sizes, accuracies):
    """How many examples were right in batches of these sizes and accuracies: whole numbers, freed of float32's rounding."""
    return int(np.rint(np.multiply(sizes, accuracies)).sum())


def predict(model, images, *, compile=True):
    """Class probabilities of bytes (N, H, W) -> (N, K) float32, rows sum to 1.   DataError: another size than the model's"""
    check_size(model, images, "the images")
    batches = Batches(Split(images, np.zeros(len(images), np.uint8)), BATCH, model.weights.context)

    def probabilities(images):
        return [loss.softmax(model(model.scaled(images)))]

    function = Replay(probabilities, model.parameters.values()) if compile else probabilities
    return np.concatenate([part[0].asnumpy() for part in [function(x) for x, _ in batches]])


def check_size(model, images, what):
    """DataError where images (N, H, W) are not of the size that the model takes."""
    if images.ndim != 3 or images.shape[1:] != tuple(model.image[1:]) or model.image[0] != 1:
        (_, height, width), size = model.image, "×".join(map(str, images.shape[1:]))
        raise DataError(f"{what} are {size} pixels; the model takes {height}×{width}")
