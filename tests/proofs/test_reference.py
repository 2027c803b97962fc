"""A training in numpy and float64, written again from the formulas. tm.fit, tm.resume and tm.train give its numbers.

It shares nothing with the package but the initial weights, and the order of the parameters in their vector: weight and
bias of the first dense layer, then of the next.
"""

import dataclasses
import json
from itertools import product

import numpy as np
import pytest

import tinymnist as tm

IMAGE, CLASSES = (1, 4, 3), 5
RULES = {"sgd": 0.1, "momentum": 0.05, "adagrad": 0.02, "rmsprop": 0.003, "adadelta": None}  # and their learning rates
SETTINGS = {"epochs": 3, "batch_size": 7, "seed": 5, "limit": 66, "normalize": True, "lr_decay": 0.7, "log_interval": 3}
PLAIN = {"limit": None, "normalize": False, "lr_decay": 1.0, "log_interval": 1}
TWO = {"device": "cpu:0,cpu:1"}
WAYS = [
    {"batch_size": 1},  # 66 batches
    {"batch_size": 1000},  # one batch
    {"one_cycle": True},  # the learning rate rises during the first 7.5 of 30 batches
    {"one_cycle": True, "compile": False, "lr_decay": 1.0},
    {"device": "cpu:2,cpu:0,cpu:1", "batch_size": 64},  # the last batch has two images, for three devices
    PLAIN,
]
CASES = [  # units of hidden layers: none, or one layer; rule; settings
    *product([(), (6,)], RULES, [{}]),
    *product([(6,)], RULES, [{"compile": False}, TWO, {**TWO, "compile": False}]),
    *product([(6,)], ["momentum"], WAYS),
]


def make_split(n, first, last):
    """Random images that become brighter or darker, so that every part of them has other statistics"""
    rng = np.random.default_rng(n)
    images = rng.uniform(0, np.linspace(first, last, n)[:, None, None], (n, *IMAGE[1:]))
    return tm.Split(images.astype(np.uint8), rng.integers(0, CLASSES, n).astype(np.uint8))


TRAIN, TEST = make_split(90, 50, 255), make_split(330, 255, 200)
DATA = tm.Data(TRAIN, TEST, "noise", "random pixels")


def make_model(hidden):
    """A network with random weights and biases, that scales pixels by 0.25 and 0.5 if a run does not normalize them"""
    model = tm.mlp(hidden=hidden, classes=CLASSES, image=IMAGE).initialize(1, dtype="float64")
    model.weights += tm.init.normal(model.weights.shape, 0.1, dtype="float64")
    model.mean, model.std = 0.25, 0.5
    return model


def make_optimizer(rule):
    return tm.Optimizer(rule, **({"lr": RULES[rule]} if RULES[rule] else {}))


def scale(images, mean, std):
    """(bytes / 255 − mean) / std, one row for each image"""
    return (images.reshape(len(images), -1) / 255 - mean) / std


def compute(w, hidden, x, labels):
    """−log p at each label; whether p is largest there; p; the gradient g of the mean loss L by w

    z = h Wᵀ + b for each layer, where h is x, and then max(z, 0) of the layer before;  p = e^z / Σ_k e^z
    ∂L/∂z = (p − [k = label]) / N;  ∂L/∂W = (∂L/∂z)ᵀ h;  ∂L/∂b = Σ_n ∂L/∂z;  ∂L/∂h = ∂L/∂z W, and 0 where max(z, 0) is 0
    """
    layers, hs, g = [], [], []
    z = x
    for units in (*hidden, CLASSES):
        hs.append(np.maximum(z, 0) if hs else x)
        weight, bias, w = np.split(w, [units * hs[-1].shape[1], units * hs[-1].shape[1] + units])
        layers.append(weight.reshape(units, -1))
        z = hs[-1] @ layers[-1].T + bias
    p, one_hot = np.exp(z) / np.exp(z).sum(1, keepdims=True), np.eye(CLASSES)[labels]
    dz = (p - one_hot) / len(x)
    for weight, h in zip(layers[::-1], hs[::-1]):
        g = [(dz.T @ h).ravel(), dz.sum(0), *g]
        dz = dz @ weight * (h > 0)
    return -np.log((p * one_hot).sum(1)), p.argmax(1) == labels, p, np.concatenate(g)


def update(rule, lr, w, g, s, t):
    """w after a step, and the states s and t of the rule; one that has fewer does not change the others"""
    if rule == "sgd":
        return w - lr * g, s, t
    if rule == "momentum":
        return w + 0.9 * s - lr * g, 0.9 * s - lr * g, t
    if rule == "adagrad":
        return w - lr * g / np.sqrt(s + g**2 + 1e-7), s + g**2, t
    s = 0.9 * s + 0.1 * g**2
    if rule == "rmsprop":
        return w - lr * g / np.sqrt(s + 1e-8), s, t
    step = np.sqrt(t + 1e-5) / np.sqrt(s + 1e-5) * g
    return w - step, s, 0.9 * t + 0.1 * step**2


def train(w, hidden, rule, *, epochs, batch_size, seed, limit, normalize, lr_decay, log_interval, one_cycle=False, **_):
    """[examples, *weights] after every batch; the states; the history; p of the test images"""
    images, labels = TRAIN.images[:limit], TRAIN.labels[:limit]
    mean, std = ((images / 255).mean(), (images / 255).std()) if normalize else (0.25, 0.5)
    x, n, s, t, steps, history = scale(images, mean, std), len(images), 0 * w, 0 * w, [], []
    for epoch in range(epochs):
        order, losses, correct, curve = np.random.default_rng((seed, epoch)).permutation(n), [], [], []
        begins, rates = range(0, n, batch_size), []
        for begin in begins:
            batch, lr = order[begin : begin + batch_size], RULES[rule] and RULES[rule] * lr_decay**epoch
            if one_cycle:
                steps_done, all_steps = len(steps) + 1 / 2, epochs * len(begins)
                lr *= np.interp(steps_done / all_steps, [0, 1 / 4, 1], [0, 1, 0])
            rates.append(lr)
            loss, right, _, g = compute(w, hidden, x[batch], labels[batch])
            w, s, t = update(rule, lr, w, g, s, t)
            steps.append([len(batch), *w])
            losses.extend(loss)
            correct.extend(right)
            curve.append([epoch * n + len(losses), loss.mean()])
        test_loss, test_right, p, _ = compute(w, hidden, scale(TEST.images, mean, std), TEST.labels)
        row = {"epoch": epoch + 1, "lr": rates[len(rates) // 2], "loss": np.mean(losses)}
        row |= {"train_accuracy": np.mean(correct), "test_loss": test_loss.mean(), "test_accuracy": test_right.mean()}
        history.append({**row, "curve": curve[log_interval - 1 :: log_interval]})
    return steps, [s, t], history, p


def check(found, expected):
    assert np.shape(found) == np.shape(expected)
    np.testing.assert_allclose(np.array(found, float), np.array(expected, float), rtol=1e-12, atol=1e-12)  # None is NaN


def check_history(history, expected):
    assert len(history) == len(expected)
    for epoch, row in zip(history, expected):
        assert epoch.keys() == {*row, "seconds", "speed"}
        for name in row:
            check(epoch[name], row[name])


def check_model(model, optimizer, steps, states, history, p):
    check(model.weights.asnumpy(), steps[-1][1:])
    for found, state in zip(optimizer.state, states):
        check(found.asnumpy(), state)
    check(tm.evaluate(model, TEST), [history[-1]["test_loss"], history[-1]["test_accuracy"]])
    for n in (1, 99, 100, 101, 330):
        check(tm.predict(model, TEST.images[:n]), p[:n])


@pytest.mark.parametrize("hidden, rule, way", CASES, ids=str)
def test_a_run_is_the_reference(hidden, rule, way, tmp_path):
    """So is the run that is stopped in the second epoch, and continued from its checkpoint."""

    def on_batch(run, examples):
        steps.append([examples, *run.model.weights.asnumpy()])
        run.stop = run.position.epoch == stop

    settings, initial = {**SETTINGS, **way}, make_model(hidden).weights.asnumpy()
    expected, states, history, p = train(initial, hidden, rule, **settings)
    for stop in (None, 1):
        steps, directory = [], tmp_path / str(stop)
        how = {"on_batch": on_batch, "save": directory}
        run = tm.fit(make_model(hidden), make_optimizer(rule), DATA, **how, **settings)
        if stop:
            assert len(run.history) < 3
            stop = None
            run = tm.resume(directory, DATA).train(**how)
        check(steps, expected)
        check_model(run.model, run.optimizer, expected, states, history, p)
        check_history([*map(dataclasses.asdict, run.history)], history)
        check_history(json.loads((directory / "history.json").read_text()), history)


@pytest.mark.parametrize("hidden, rule", [*product([(), (6,)], RULES)], ids=str)
def test_the_lessons_loop_is_the_reference(hidden, rule):
    model, optimizer = make_model(hidden), make_optimizer(rule)
    expected = train(model.weights.asnumpy(), hidden, rule, **{**SETTINGS, **PLAIN})
    tm.train(model, optimizer, TRAIN, epochs=3, batch_size=7, seed=5)
    check_model(model, optimizer, *expected)


@pytest.mark.parametrize("n, device", [(20_130, "cpu"), (20_130, "cpu:0,cpu:1"), (2, "cpu:0,cpu:1,cpu:2")])
def test_every_test_image_counts(n, device):
    """In more than a hundred batches on each device, and in one batch of fewer images than devices"""
    model, test = make_model(()), make_split(n, 255, 10)
    settings = {"epochs": 1, "batch_size": 50, "device": device}
    run = tm.fit(model, make_optimizer("sgd"), DATA._replace(test=test), **settings)
    losses, right, _, _ = compute(model.weights.asnumpy(), (), scale(test.images, 0.25, 0.5), test.labels)
    check([run.history[0].test_loss, run.history[0].test_accuracy], [losses.mean(), right.mean()])
