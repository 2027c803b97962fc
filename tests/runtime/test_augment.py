"""Altered images are the map that they are said to be, pixel by pixel."""

import numpy as np
import pytest

import tinymnist as tm
from tinymnist.batches import Batches
from tinymnist.datasets import augment
from tinymnist.datasets.augment import altered, bilinear, gaussian

rng = np.random.default_rng


@pytest.fixture(scope="module")
def images():
    return tm.load("digits").train.images[:20]


class Most:
    """In place of a random generator: everything is at the upper end of its range, and nothing is bent."""

    def uniform(self, low, high, size):
        return np.full(size, high)

    def random(self, size, dtype):
        return np.full(size, 0.5, dtype)


@pytest.fixture
def only(monkeypatch):
    def only(shift=0.0, turn=0.0, scale=0.0, bend=0.0):
        for name, value in {"SHIFT": shift, "TURN": turn, "SCALE": scale, "BEND": bend}.items():
            monkeypatch.setattr(augment, name, value)

    return only


def test_nothing_asked_for_nothing_done(images, only):
    only()
    assert np.array_equal(altered(images, rng(0)), images)


def test_a_shift_of_whole_pixels(images, only):
    only(shift=3)
    expected = np.zeros_like(images)
    expected[:, :-3, :-3] = images[:, 3:, 3:]
    assert np.array_equal(altered(images, Most()), expected)


@pytest.mark.parametrize("turn, quarters", [(90, 3), (180, 2), (-90, 1), (360, 0)])
def test_quarter_turns(images, only, turn, quarters):
    only(turn=turn)
    assert np.array_equal(altered(images, Most()), np.rot90(images, quarters, axes=(1, 2)))


def test_twice_as_large(images, only):
    only(scale=1)
    pairs = altered(images, Most()).astype(float).reshape(-1, 14, 2, 14, 2).mean((2, 4))
    # Pixels 2i and 2i + 1 lie at i + 7 ∓ 1/4 of the original, so that their mean takes 1/8, 3/4 and 1/8 of three.
    expected = images.astype(float)
    for axis in (1, 2):
        expected = (np.roll(expected, 1, axis) + 6 * expected + np.roll(expected, -1, axis)) / 8
    assert np.abs(pairs - expected[:, 7:21, 7:21]).max() <= 0.51  # rounding to bytes


@pytest.mark.parametrize("height, width", [(28, 28), (9, 17)])
def test_between_four_pixels(height, width):
    """The weight of pixel (i, j) at (y, x) is (1 − |y − i|)⁺ (1 − |x − j|)⁺, wherever that is."""
    images = rng(0).integers(0, 256, (3, height, width)).astype(np.uint8)
    y, x = (rng(k).uniform(-4, n + 3, (3, height, width)).astype(np.float32) for k, n in ((1, height), (2, width)))
    rows = np.maximum(0, 1 - np.abs(y[..., None] - np.arange(height)))
    columns = np.maximum(0, 1 - np.abs(x[..., None] - np.arange(width)))
    expected = np.einsum("nij,npqi,npqj->npq", images.astype(float), rows, columns)
    assert np.abs(bilinear(images, y, x) - expected).max() <= 0.501


def test_the_field_is_smooth_and_as_strong_as_said():
    weights = gaussian(28)
    assert np.allclose(weights, weights.T) and np.allclose(weights[14].sum(), 1, atol=1e-3)
    assert np.isclose(weights[14, 18] / weights[14, 14], np.exp(-0.5), atol=1e-6)  # σ = 4 pixels away
    noise = 2 * rng(0).random((2000, 28, 28), np.float32) - 1
    field = augment.BEND * (weights @ noise @ weights.T)[:, 8:20, 8:20]
    # Of white noise with variance 1/3, G ∗ u has the variance 1/3 · 1/(4πσ²).
    expected = augment.BEND / np.sqrt(3 * 4 * np.pi * augment.STIFFNESS**2)
    assert np.isclose(field.std(), expected, rtol=0.05) and 0.4 < expected < 1.2  # pixels


def test_every_image_and_every_draw_is_another_one(images):
    same = altered(np.repeat(images[:1], 20, axis=0), rng(0))
    assert len({image.tobytes() for image in same}) == 20
    assert np.array_equal(altered(images, rng(1)), altered(images, rng(1)))
    assert not np.array_equal(altered(images, rng(1)), altered(images, rng(2)))


def test_digits_stay_what_they_are(images):
    """A model that reads the digits reads most of the altered ones too."""
    data = tm.load("digits")
    run = tm.fit(tm.mlp(hidden=(64,)), tm.Optimizer("adagrad", lr=0.02), data, epochs=8, log_interval=5)
    some = data.train.images[:500]
    plain, changed = (
        (tm.predict(run.model, x).argmax(1) == data.train.labels[:500]).mean() for x in (some, altered(some, rng(0)))
    )
    assert plain > 0.97 and 0.4 < changed < plain  # of 10 digits, so that chance is 0.1


def test_batches_alter_by_epoch_and_batch_and_leave_the_labels(images):
    labels = np.arange(20, dtype=np.uint8) % 10
    batches = Batches((images, labels), 8, tm.backend.mx.cpu(), alter=altered)
    order = np.arange(20)[::-1].copy()

    def pixels(seed, start=0):
        return [x.asnumpy() for x, _ in batches.epoch(order, start, seed)]

    first, again, later, rest = pixels((0, 0)), pixels((0, 0)), pixels((0, 1)), pixels((0, 0), start=1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not any(np.array_equal(a, b) for a, b in zip(first, later))
    assert all(np.array_equal(a, b) for a, b in zip(first[1:], rest))  # gone on with from the middle
    found = np.concatenate([y.asnumpy() for _, y in batches.epoch(order, 0, (0, 0))])
    assert np.array_equal(found, labels[order])
