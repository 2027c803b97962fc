"""Each altered image is mapped as the formula says, pixel by pixel."""

from types import SimpleNamespace

import numpy as np
import pytest

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


def test_an_altered_image_is_the_formula_pixel_by_pixel():
    """In loops, in float64, with the same random numbers. The images are not square and reach their borders."""
    images = rng(1).integers(0, 256, (2, 9, 13), np.uint8)
    numbers, (n, height, width) = rng(5), images.shape
    angles, scales = numbers.uniform(-12, 12, n) * np.pi / 180, numbers.uniform(0.88, 1.12, (2, n))
    shifts, u = numbers.uniform(-2, 2, (2, n)), 2 * numbers.random((2, n, height, width), np.float32).astype(float) - 1

    def gaussian_2d(dy, dx):
        return np.exp(-(dy**2 + dx**2) / (2 * 4.0**2)) / (2 * np.pi * 4.0**2)

    expected = np.zeros(images.shape)
    for k, p, q in np.ndindex(images.shape):
        dy, dx = np.mgrid[:height, :width][0] - p, np.mgrid[:height, :width][1] - q
        bend = [24 * (gaussian_2d(dy, dx) * u[axis, k]).sum() for axis in (0, 1)]
        y, x = (p - (height - 1) / 2) / scales[0, k], (q - (width - 1) / 2) / scales[1, k]
        cos, sin = np.cos(angles[k]), np.sin(angles[k])
        row = cos * y - sin * x + (height - 1) / 2 + shifts[0, k] + bend[0]
        column = sin * y + cos * x + (width - 1) / 2 + shifts[1, k] + bend[1]
        for i, j in np.ndindex(height, width):
            expected[k, p, q] += max(0, 1 - abs(row - i)) * max(0, 1 - abs(column - j)) * images[k, i, j]
    assert np.abs(alter(images, rng(5)) - expected).max() <= 0.501  # rounding to bytes
    assert np.abs(images - expected).max() > 50


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


@pytest.mark.parametrize("device", ["cpu", "cpu:0,cpu:1", "cpu:0,cpu:1,cpu:2"])
@pytest.mark.parametrize("compile", [True, False])
def test_a_run_alters_each_share_of_a_batch_by_the_seed_the_epoch_and_the_batch(compile, device):
    """The images are seen in the gradient. Every image n has its own label, and no image has the label K − 1.

    With weights 0: x_n = N (∂L/∂W[K − 1] − ∂L/∂W[label n]), as in test_dropout.py.
    """

    def on_batch(run, examples):
        gradient = run.model.parameters["0.weight"].grad.asnumpy()
        x = examples * 255 * (gradient[20] - gradient[:20])
        epoch, batch = run.position.epoch, run.position.batch - 1
        some = np.random.default_rng((7, epoch)).permutation(20)[batch * 8 : batch * 8 + 8]
        for number in range(devices):
            part = some[len(some) * number // devices : len(some) * (number + 1) // devices]
            expected = alter(IMAGES[part], rng((7, epoch, batch, number)))
            np.testing.assert_allclose(x[part], expected.reshape(len(part), -1), atol=1e-9)
        seen.append(x[some])

    seen, devices, split = [], len(device.split(",")), tm.Split(IMAGES, np.arange(20, dtype=np.uint8))
    model = tm.softmax_regression(classes=21).allocate(dtype="float64")
    settings = {"epochs": 3, "batch_size": 8, "seed": 7, "augment": True, "device": device, "compile": compile}
    data = tm.Data(split, split, "own labels", "digits")
    tm.fit(model, tm.Optimizer("sgd", lr=1e-37), data, on_batch=on_batch, **settings)
    assert len(np.unique(np.concatenate(seen), axis=0)) == 3 * 20  # new images in every epoch


def test_test_images_are_not_altered():
    data, optimizer = tm.load("digits"), tm.Optimizer("sgd", lr=0.1)
    data = data._replace(train=tm.Split(*(array[:100] for array in data.train)))
    run = tm.fit(tm.softmax_regression().initialize(dtype="float64"), optimizer, data, epochs=1, augment=True)
    images, labels = data.test
    weight, bias = (run.model.parameters[name].asnumpy() for name in ("0.weight", "0.bias"))
    logits = images.reshape(len(images), -1) / 255 @ weight.T + bias
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    assert run.history[0].test_loss == pytest.approx(losses.mean(), rel=1e-9)


def test_altered_digits_can_still_be_read():
    data = tm.load("digits")
    run = tm.fit(tm.mlp(hidden=(64,)), tm.Optimizer("adagrad", lr=0.02), data, epochs=8)
    images, labels = (array[:500] for array in data.train)
    plain, altered = ((tm.predict(run.model, x).argmax(1) == labels).mean() for x in (images, alter(images, rng(0))))
    assert plain > 0.97 and 0.4 < altered < plain  # of 10 digits, so that chance is 0.1
