"""Each altered image is mapped as the formula says, pixel by pixel."""

from types import SimpleNamespace

import numpy as np

import tinymnist as tm
from tinymnist.datasets import augment
from tinymnist.datasets.augment import alter, gaussian, interpolate

IMAGES = tm.load("digits").train.images[:20]
rng = np.random.default_rng


# In place of a random generator: every number is the largest of its range, and nothing is bent.
LARGEST = SimpleNamespace(
    uniform=lambda low, high, size: np.full(size, high), random=lambda size, dtype: np.full(size, 0.5, dtype)
)


def set_limits(monkeypatch, **limits):
    for name in ("SHIFT", "ROTATION", "SCALE", "ALPHA"):
        monkeypatch.setattr(augment, name, limits.get(name.lower(), 0.0))


def test_shifts_by_whole_pixels_and_quarter_turns_are_exact(monkeypatch):
    set_limits(monkeypatch)  # to zero
    assert np.array_equal(alter(IMAGES, rng(0)), IMAGES)
    set_limits(monkeypatch, shift=3)
    assert np.array_equal(alter(IMAGES, LARGEST), np.pad(IMAGES[:, 3:, 3:], ((0, 0), (0, 3), (0, 3))))
    set_limits(monkeypatch, rotation=90)
    assert np.array_equal(alter(IMAGES, LARGEST), np.rot90(IMAGES, 3, axes=(1, 2)))
    set_limits(monkeypatch, rotation=180)
    assert np.array_equal(alter(IMAGES[:, 5:], LARGEST), np.rot90(IMAGES[:, 5:], 2, axes=(1, 2)))


def test_twice_the_size_is_exact(monkeypatch):
    set_limits(monkeypatch, scale=1)
    pairs = alter(IMAGES, LARGEST).astype(float).reshape(-1, 14, 2, 14, 2).mean((2, 4))
    # Pixels 2i and 2i + 1 lie at i + 7 ∓ 1/4 of the original, so their mean is 1/8, 3/4 and 1/8 of three pixels.
    expected = IMAGES.astype(float)
    for axis in (1, 2):
        expected = (np.roll(expected, 1, axis) + 6 * expected + np.roll(expected, -1, axis)) / 8
    assert np.abs(pairs - expected[:, 7:21, 7:21]).max() <= 0.51  # rounding to bytes


def test_interpolation_is_bilinear_everywhere():
    """The weight of pixel (i, j) at (y, x) is (1 − |y − i|)⁺ (1 − |x − j|)⁺."""
    images = rng(0).integers(0, 256, (3, 9, 17), np.uint8)
    y, x = (rng(n).uniform(-4, n + 3, (3, 9, 17)).astype(np.float32) for n in (9, 17))
    rows, columns = (np.maximum(0, 1 - np.abs(at[..., None] - np.arange(n))) for at, n in ((y, 9), (x, 17)))
    expected = np.einsum("nij,npqi,npqj->npq", images.astype(float), rows, columns)
    assert np.abs(interpolate(images, y, x) - expected).max() <= 0.501


def test_the_elastic_field_is_smooth_and_has_the_stated_strength():
    weights = gaussian(28)
    assert np.allclose(weights, weights.T) and np.allclose(weights[14].sum(), 1, atol=1e-3)
    assert np.isclose(weights[14, 18] / weights[14, 14], np.exp(-0.5), atol=1e-6)  # σ = 4 pixels away
    noise = rng(0).uniform(-1, 1, (2000, 28, 28))
    field = augment.ALPHA * (weights @ noise @ weights.T)[:, 8:20, 8:20]
    # Of white noise with variance 1/3, G ∗ u has the variance 1/3 · 1/(4πσ²).
    expected = augment.ALPHA / np.sqrt(3 * 4 * np.pi * augment.SIGMA**2)
    assert np.isclose(field.std(), expected, rtol=0.05) and 0.4 < expected < 1.2  # pixels


def test_every_image_has_its_own_map_and_every_seed_its_own_maps():
    altered = alter(np.repeat(IMAGES[:1], 20, axis=0), rng(0))
    assert len({image.tobytes() for image in altered}) == 20
    assert np.array_equal(alter(IMAGES, rng(1)), alter(IMAGES, rng(1)))
    assert not np.array_equal(alter(IMAGES, rng(1)), alter(IMAGES, rng(2)))


def test_altered_digits_can_still_be_read():
    data = tm.load("digits")
    run = tm.fit(tm.mlp(hidden=(64,)), tm.Optimizer("adagrad", lr=0.02), data, epochs=8)
    images, labels = (array[:500] for array in data.train)
    plain, altered = ((tm.predict(run.model, x).argmax(1) == labels).mean() for x in (images, alter(images, rng(0))))
    assert plain > 0.97 and 0.4 < altered < plain  # of 10 digits, so that chance is 0.1
