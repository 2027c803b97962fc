"""Every named experiment runs; every model trains by every rule with nothing but its defaults."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from commands import command, refused

import tinymnist as tm
from tinymnist.experiments import recipes
from tinymnist.experiments.recipes import FIVE_RULES, HYPER, RECIPES, held_out, hyper, published

train = command("train")


@pytest.fixture(scope="module")
def mnist():
    if not os.environ.get("TINYMNIST_DATA"):
        pytest.skip("needs the real MNIST: $TINYMNIST_DATA names its directory")
    return tm.load()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs(name, tmp_path, capsys):
    assert train("--recipe", name, "--data", "digits", "--limit", 60, "--epochs", 1, "--save", tmp_path / "run") == 0
    _, _, content = tm.checkpoint.load(tmp_path / "run")
    recipe = RECIPES[name]
    assert content["rule"] == recipe.rule and recipe.hyper.items() <= content["hyper"].items()
    assert tm.models.MODELS[recipe.model].__name__ == content["model"]
    settings = {**recipe.settings, "epochs": 1, "limit": 60}
    assert settings.items() <= content["settings"].items()
    assert json.loads(json.dumps(recipe.arguments)).items() <= content["arguments"].items()


def test_the_list_says_what_was_published(capsys):
    assert train("--list-recipes") == 0
    said = capsys.readouterr().out
    assert all(name in said and recipe.title in said and recipe.published in said for name, recipe in RECIPES.items())


def test_an_unknown_recipe(capsys):
    assert refused(capsys, train("--recipe", "nonsense"), "'nonsense'", "softmax-sgd", "best")


def test_the_configurable_net_with_tanh_is_lenet():
    assert RECIPES["cnn-tanh"][2:] == RECIPES["lenet"][2:]
    relu = RECIPES["cnn-relu"]
    assert relu._replace(arguments={**relu.arguments, "activation": "tanh"})[2:] == RECIPES["lenet"][2:]


def test_dropout_is_tested_untrained_and_goes_on_from_what_was_saved(tmp_path, capsys):
    words = ["--recipe", "dropout", "--data", "digits", "--limit", 230, "--batch-size", 10]
    assert train(*words, "--save", tmp_path / "whole") == 0
    said = capsys.readouterr().out
    run = tm.resume(tmp_path / "whole", tm.load("digits"))
    assert [e.epoch for e in run.history] == list(range(1, 9))
    assert [n for e in run.history[:2] for n, _ in e.curve] == [100, 200, 330, 430]  # the loss of every tenth batch
    assert run.model.mean > 0.1 and run.model.std > 0.1  # normalised by what was computed
    fresh = tm.dropout_cnn()
    fresh.mean, fresh.std = run.model.mean, run.model.std
    loss, accuracy = tm.evaluate(fresh.initialize(0), tm.load("digits").test)
    untrained = next(line.split() for line in said.splitlines() if line.split()[:1] == ["0"])
    assert untrained[3:] == [f"{loss:.4f}", f"{accuracy:.4f}"]
    assert said.index("going on from") > said.index("\n    3 ") and (tmp_path / "whole" / "curves.png").exists()

    assert train(*words, "--epochs", 3, "--save", tmp_path / "part") == 0
    short = tm.resume(tmp_path / "part", tm.load("digits"))
    assert [e.curve for e in short.history] == [e.curve for e in run.history[:3]]


@pytest.mark.parametrize("model", tm.models.MODELS)
@pytest.mark.parametrize("rule", tm.optim.RULES)
def test_defaults_suit_every_pair(model, rule):
    assert tm.Optimizer(rule, **hyper(model, rule)).hyper.keys() >= hyper(model, rule).keys()


def test_what_was_published_stands_beside_what_was_published_only():
    mnist, other = SimpleNamespace(fingerprint=recipes.MNIST), tm.load("digits")
    rmsprop = {"lr": 0.03, "rho": 0.9, "eps": 1e-8}
    assert all(len(table) == 5 for table in FIVE_RULES.values())
    assert published("softmax", "sgd", {"lr": 0.1}, mnist)[-1] == (87.42, 87.67)
    assert published("softmax", "rmsprop", rmsprop, mnist) == FIVE_RULES["rmsprop"]
    assert not published("softmax", "sgd", {"lr": 0.2}, mnist) and not published("mlp", "sgd", {"lr": 0.1}, mnist)
    assert not published("softmax", "rmsprop", {**rmsprop, "eps": 1e-6}, mnist)
    assert not published("softmax", "sgd", {"lr": 0.1}, other)
    hyper("softmax", "sgd")["lr"] = 7
    assert HYPER["softmax"]["sgd"] == {"lr": 0.1}  # a copy was given


def test_held_out():
    data = tm.load("digits")
    held = held_out(data, 100)
    assert np.array_equal(held.train.images, data.train.images[:-100])
    assert np.array_equal(held.test.images, data.train.images[-100:])
    assert np.array_equal(held.test.labels, data.train.labels[-100:])
    assert held.fingerprint != data.fingerprint and "the last 100 training images" in held.source
    for n in (0, -1, len(data.train.labels)):
        with pytest.raises(ValueError, match="1 to all but one can be held out"):
            held_out(data, n)


def test_hold_out_on_the_command_line(tmp_path, capsys):
    words = ["--data", "digits", "--epochs", 1, "--save", tmp_path / "run"]
    assert train(*words, "--hold-out", 100) == 0
    model, _, content = tm.checkpoint.load(tmp_path / "run")
    data = tm.load("digits")
    right = (tm.predict(model, data.train.images[-100:]).argmax(1) == data.train.labels[-100:]).mean()
    assert content["history"][-1]["test_accuracy"] == pytest.approx(right)
    assert "instead of the test images" in capsys.readouterr().out
    assert refused(capsys, train(*words, "--hold-out", 5000), "1,497", "5,000")
    assert refused(capsys, train("--resume", tmp_path / "run", "--data", "digits", "--hold-out", 99), "other data")
    assert train("--resume", tmp_path / "run", "--epochs", 2) == 0  # it knows what was held out


LEAST = {"softmax": 0.80, "mlp": 0.90, "dropout-cnn": 0.92, "lenet": 0.95}


@pytest.mark.slow
@pytest.mark.parametrize("model", tm.models.MODELS)
@pytest.mark.parametrize("rule", tm.optim.RULES)
def test_one_epoch_with_defaults(mnist, model, rule):
    settings = {**recipes.SETTINGS.get(model, {}), "epochs": 1, "limit": 30_000 if model == "lenet" else None}
    run = tm.fit(tm.models.MODELS[model](), tm.Optimizer(rule, **hyper(model, rule)), mnist, **settings)
    assert run.history[-1].test_accuracy >= LEAST[model]
