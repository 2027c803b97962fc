"""The training loop. This is all there is to training; evaluate and predict use the trained model.

tinymnist/runtime takes the same steps and adds speed, checkpoints, several devices and machines.
"""

import numpy as np

from tinymnist.backend import autograd
from tinymnist.batches import Batches, Split, permutation
from tinymnist.idx import DataError
from tinymnist.layers import Sequential
from tinymnist.loss import is_correct, softmax, softmax_cross_entropy
from tinymnist.optim import Optimizer

BATCH = 100  # examples in a batch of evaluation: enough for fast products, few enough for the cache


def train(model: Sequential, optimizer: Optimizer, split: Split, *, epochs: int, batch_size: int, seed: int = 0):
    """Train an initialized model on a Split, in place. The seed decides the order of the examples.

    Raises DataError for images or labels that do not suit the model.
    """
    check_split(model, split, "the training data")
    batches = Batches(split, batch_size, model.weights.context)
    for epoch in range(epochs):
        for images, labels in batches.epoch(permutation(seed, epoch, len(split.labels))):
            with autograd.record():
                loss = softmax_cross_entropy(model(images), labels)  # forward
            loss.backward()  # fills model.gradients
            optimizer.step(model.weights, model.gradients)  # update


def evaluate(model: Sequential, split: Split) -> tuple[float, float]:
    """The mean loss and the accuracy over all examples of a Split. Raises DataError as train does."""
    check_split(model, split, "the data")
    n, loss_sum, correct = len(split.labels), 0.0, 0.0
    for images, labels in Batches(split, BATCH, model.weights.context).epoch(np.arange(n)):
        logits = model(images)
        loss_sum += len(labels) * float(softmax_cross_entropy(logits, labels).asscalar())
        correct += float(is_correct(logits, labels).sum().asscalar())
    return loss_sum / n, correct / n


def predict(model: Sequential, images: np.ndarray) -> np.ndarray:
    """Class probabilities of images (N, H, W), bytes. Returns (N, K); rows sum to 1. Raises DataError as train does."""
    check_images(model, images, "the images")
    split = Split(images, np.zeros(len(images), np.uint8))  # Batches needs labels; they are not used
    batches = Batches(split, BATCH, model.weights.context).epoch(np.arange(len(images)))
    return np.concatenate([softmax(model(x)).asnumpy() for x, _ in batches])


def check_images(model, images, name):
    """Raise DataError unless `images` are bytes (N, H, W) of the size that the model takes."""
    if images.ndim != 3 or images.dtype != np.uint8 or (1, *images.shape[1:]) != model.image:
        _, height, width = model.image
        found = f"{images.dtype.name} of the shape {images.shape}"
        raise DataError(f"{name} are {found}; the model takes bytes, uint8, of the shape (N, {height}, {width})")


def check_split(model, split, name):
    """Raise DataError unless the images suit the model and every image has a label that is one of its classes."""
    images, labels = split
    check_images(model, images, f"the images of {name}")
    if not len(images) or labels.shape != (len(images),):
        raise DataError(f"{name}: {len(images)} images and labels of the shape {labels.shape}; each image needs one")
    wrong = ~np.isin(labels, np.arange(model.classes))
    if wrong.any():
        last = model.classes - 1
        raise DataError(f"{name}: there is a label {labels[wrong][0]}; labels are whole numbers from 0 to {last}")
