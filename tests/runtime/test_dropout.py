"""Dropout during a run: new masks at every step, no masks in evaluation and prediction.

The masks are seen in the gradient. All pixels are 1, all weights are 0, and every image of an epoch has its own label,
so that x_n, which is the mask of image n, is the difference of two rows of the gradient:

    p = 1 / K;  ∂L/∂W[k] = (1/N) Σ_n (1/K − [k = label n]) x_n;  x_n = N (∂L/∂W[K − 1] − ∂L/∂W[label n])

No image has the label K − 1. The learning rate is so small that the weights stay 0.
"""

import numpy as np
import pytest
from runs import bits, stop_at

import tinymnist as tm
from tinymnist.backend import mx
from tinymnist.layers import Dense, Dropout, Sequential

N, PIXELS, BATCH = 238, 64, 7  # 34 batches; MXNet's generator gets a new seed at batches 0, 16 and 32
WHITE = tm.Split(np.full((N, 1, PIXELS), 255, np.uint8), np.arange(N, dtype=np.uint8))
DATA = tm.Data(WHITE, tm.Split(WHITE.images[:1], WHITE.labels[:1]), "white", "white images")
WAYS = [{}, {"compile": False}, {"device": "cpu:0,cpu:1"}, {"device": "cpu:0,cpu:1", "compile": False}]
every_way = pytest.mark.parametrize("way", WAYS, ids=str)


def make_network(rate=0.5):
    return Sequential(Dropout(rate), Dense(N + 1), image=(1, 1, PIXELS))


def read_masks(model):
    """(N, PIXELS): of the images in the last batch; 0 for all others. The values are 0 or 1 / (1 − rate)."""
    gradient = model.gradients.asnumpy()[: (N + 1) * PIXELS].reshape(N + 1, PIXELS)
    return (gradient[N] - gradient[:N]).round(12)


def make_run(rate=0.5, **settings):
    model, rule = make_network(rate).allocate(mx.cpu(), "float64"), tm.Optimizer("sgd", lr=1e-37)
    return tm.Run(model, rule, DATA, tm.Settings(**{"epochs": 2, "batch_size": BATCH, "seed": 3, **settings}))


def watch(run, **options):
    """The masks of all batches while a run trains"""
    masks = []
    run.train(on_batch=lambda run, examples: masks.append(examples * read_masks(run.model)), **options)
    return masks


def list_masks(run, **options):
    """(2 N, PIXELS): the masks of all images of both epochs"""
    masks = np.array(watch(run, **options))
    return masks[masks.any(axis=2)]


@every_way
@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_every_image_of_every_step_has_a_new_mask(rate, way):
    """Also at the batches 0, 16 and 32, where MXNet gets a new seed, in both epochs, and on both devices."""
    masks = list_masks(make_run(rate, **way))
    assert masks.shape == (2 * N, PIXELS) and len(np.unique(masks, axis=0)) == 2 * N
    kept = masks > 0
    np.testing.assert_allclose(masks[kept], 1 / (1 - rate), rtol=1e-9)
    assert abs(kept.mean() - (1 - rate)) < 0.02  # 30,464 draws: seven standard deviations
    assert abs(kept.mean(axis=0) - (1 - rate)).max() < 0.15  # 476 draws for each pixel


def test_the_seed_decides_the_masks_and_each_worker_has_its_own():
    def draw(seed=3, rank=0, **settings):
        run = make_run(seed=seed, epochs=1, **settings)
        run.exchange.rank = rank
        return list_masks(run)

    masks = draw()
    assert draw().tobytes() == draw(compile=False).tobytes() == masks.tobytes()
    others = np.concatenate([masks, draw(seed=4), draw(seed=2**40), draw(rank=1), draw(rank=2)])
    assert len(np.unique(others, axis=0)) == 5 * N


@every_way
@pytest.mark.parametrize("batches", [1, 16, 17, 33])
def test_a_run_that_continues_draws_the_masks_of_the_run_that_was_never_stopped(batches, way, tmp_path):
    """It stops at batch 16 or 32, or at the end of the epoch."""
    expected, parts = watch(make_run(**way)), []

    def on_batch(run, examples):
        parts.append(examples * read_masks(run.model))
        stop_at(batches)(run, examples)

    make_run(**way).train(on_batch=on_batch, save=tmp_path)
    assert len(parts) == -(-batches // 16) * 16 if batches < 33 else 34
    mx.random.seed(99)  # as in a new process
    parts += watch(tm.resume(tmp_path, DATA, model=make_network()))
    assert len(parts) == len(expected) == 68
    assert all(part.tobytes() == other.tobytes() for part, other in zip(parts, expected))


IMAGES, LABELS = tm.load("digits").train


def make_digits_run(**settings):
    """A run whose batches, of training and of evaluation, have 100 images"""
    train, test = tm.Split(IMAGES[:250], LABELS[:250]), tm.Split(IMAGES[250:500], LABELS[250:500])
    layers = Dropout(0.5), Dense(10), Dropout(0.5)
    model, rule = Sequential(*layers).initialize(0, dtype="float64"), tm.Optimizer("momentum", lr=0.1)
    return tm.Run(
        model, rule, tm.Data(train, test, "digits", "digits"), tm.Settings(epochs=2, batch_size=100, **settings)
    )


def check_evaluation(run):
    """The loss, the accuracy and the probabilities are those of logits x Wᵀ + b. Returns the first two."""
    images, labels = run.data.test
    weight, bias = (run.model.parameters[name].asnumpy() for name in ("1.weight", "1.bias"))
    logits = images.reshape(len(images), -1) / 255 @ weight.T + bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log(p[np.arange(len(p)), labels]).mean(), (p.argmax(1) == labels).mean()
    np.testing.assert_allclose(tm.evaluate(run.model, run.data.test), expected, rtol=1e-9)
    np.testing.assert_allclose(tm.predict(run.model, images), p, rtol=1e-9)
    return expected


@every_way
def test_dropout_is_off_in_evaluation_and_prediction_and_these_do_not_change_a_run(way):
    """After every batch and every epoch, in batches as large as those of training."""
    watched = make_digits_run(**way)
    found = []
    watched.train(
        on_batch=lambda run, examples: check_evaluation(run), on_epoch=lambda run: found.append(check_evaluation(run))
    )
    history = [(epoch.test_loss, epoch.test_accuracy) for epoch in watched.history]
    np.testing.assert_allclose(history, found, rtol=1e-9)
    assert len(history) == 2 and bits(watched) == bits(make_digits_run(**way).train())


def test_dropout_is_on_in_the_loop_of_the_lesson():
    model = make_network(0.25).allocate(mx.cpu(), "float64")
    tm.train(model, tm.Optimizer("sgd", lr=1e-37), WHITE, epochs=1, batch_size=N)
    masks = N * read_masks(model)
    np.testing.assert_allclose(masks[masks > 0], 4 / 3, rtol=1e-9)
    assert abs((masks > 0).mean() - 0.75) < 0.03 and len(np.unique(masks, axis=0)) == N
