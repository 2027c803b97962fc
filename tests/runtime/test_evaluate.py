"""Loss and accuracy over a whole split, by hand in numpy, however many batches are read at a time."""

import sys

import numpy as np
import pytest

import tinymnist as tm
from tinymnist.batches import Batches
from tinymnist.datasets.load import Split


@pytest.mark.parametrize("read", [1, 2, 100])
@pytest.mark.parametrize("size", [1, 7, 300])
def test_evaluate_is_the_mean_over_all_examples(size, read, monkeypatch):
    monkeypatch.setattr(sys.modules["tinymnist.runtime.metrics"], "READ", read)
    model = tm.softmax_regression().initialize(1)
    images, labels = (array[:30] for array in tm.load("digits").test)
    logits = images.reshape(30, -1) / 255 @ model.parameters["0.weight"].asnumpy().T.astype("float64")
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(30), labels]
    loss, accuracy = tm.evaluate(model, Batches(Split(images, labels), size, model.weights.context))
    assert loss == pytest.approx(losses.mean(), rel=1e-6)
    assert accuracy == (logits.argmax(1) == labels).mean()


def test_evaluate_of_a_split():
    model, split = tm.softmax_regression().initialize(1), tm.load("digits").test
    probabilities = tm.predict(model, split.images)
    loss, accuracy = tm.evaluate(model, split)
    assert loss == pytest.approx(-np.log(probabilities[np.arange(300), split.labels]).mean(), rel=1e-5)
    assert accuracy == (probabilities.argmax(1) == split.labels).mean()
