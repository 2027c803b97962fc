"""The training loop. This is all there is to training; evaluate and predict use the trained model.

tinymnist/runtime does the same steps and adds speed, checkpoints, several devices and machines.
"""

import numpy as np

from tinymnist.backend import autograd
from tinymnist.batches import Batches, Split, permutation
from tinymnist.checks import check_images, check_split, check_training
from tinymnist.layers import Sequential
from tinymnist.loss import is_correct, softmax, softmax_cross_entropy
from tinymnist.optim import Optimizer

BATCH = 100  # examples in a batch of evaluation: enough for fast products, few enough for the cache


def train(model: Sequential, optimizer: Optimizer, split: Split, *, epochs: int, batch_size: int, seed: int = 0):
    """Train an initialized model on a Split, in place. The seed decides the order of the examples.

    Raises DataError for a model without weights or unsuitable data, ValueError for a wrong optimizer or batch size.
    """
    split = check_training(model, optimizer, split)
    batches = Batches(split, batch_size, model.weights.context)
    for epoch in range(epochs):
        for images, labels in batches.epoch(permutation(seed, epoch, len(split.labels))):
            with autograd.record():
                loss = softmax_cross_entropy(model(images), labels)  # forward
            loss.backward()  # fills model.gradients
            optimizer.step(model.weights, model.gradients)  # update


def evaluate(model: Sequential, split: Split) -> tuple[float, float]:
    """The mean loss and the accuracy over a Split, without dropout. Raises DataError as train does."""
    split = check_split(model, split)
    n, loss_sum, correct = len(split.labels), 0.0, 0.0
    for images, labels in Batches(split, BATCH, model.weights.context).epoch(np.arange(n)):
        logits = model(images)
        loss_sum += len(labels) * float(softmax_cross_entropy(logits, labels).asscalar())
        correct += float(is_correct(logits, labels).sum().asscalar())
    return loss_sum / n, correct / n


def predict(model: Sequential, images: np.ndarray) -> np.ndarray:
    """Class probabilities of images (N, H, W), bytes. Returns (N, K); rows sum to 1. Raises DataError as train does."""
    images = check_images(model, images)
    split = Split(images, np.zeros(len(images), np.uint8))  # Batches needs labels; they are not used
    batches = Batches(split, BATCH, model.weights.context).epoch(np.arange(len(images)))
    return np.concatenate([softmax(model(x)).asnumpy() for x, _ in batches])
