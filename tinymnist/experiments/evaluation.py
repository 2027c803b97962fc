"""How well a model classifies: its accuracies during training, its confusion matrix, its most confident mistakes."""

from __future__ import annotations

import numpy as np

from tinymnist.datasets.published import DISPUTED
from tinymnist.train import evaluate


def measure_accuracies(run, on_batch=None):
    """Train a Run to its end. Returns the accuracies "training" and "test" after each epoch, in %, and "seconds"."""
    training = []
    run.train(on_batch=on_batch, on_epoch=lambda run: training.append(evaluate(run.model, run.train_split)[1]))
    return {
        "training": [round(100 * accuracy, 4) for accuracy in training],
        "test": [round(100 * epoch.test_accuracy, 4) for epoch in run.history],
        "seconds": round(sum(epoch.seconds for epoch in run.history), 3),
    }


def confusion_matrix(labels, predicted, classes):
    """matrix[i, j]: how many examples of class i were predicted to be of class j. Returns (classes, classes)."""
    pairs = labels.astype(int) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def find_mistakes(labels, predicted, confidence):
    """The numbers of the examples with a wrong prediction, the most confident first."""
    wrong = np.flatnonzero(predicted != labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")]


def is_disputed(labels):
    """True at the DISPUTED labels if these are the labels of MNIST's test images, False elsewhere. Returns (N,)"""
    numbers, disputed = list(DISPUTED), np.zeros(len(labels), bool)
    if len(labels) == 10_000 and labels[numbers].tolist() == list(DISPUTED.values()):
        disputed[numbers] = True
    return disputed
