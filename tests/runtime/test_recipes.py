"""Every named experiment runs; every model trains with every rule and nothing but its defaults."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from commands import command, refused

import tinymnist as tm
from tinymnist.experiments import recipes
from tinymnist.experiments.recipes import FIVE_RULES, RECIPES, default_hyper, hold_out, published_accuracies
from tinymnist.runtime import checkpoint

train = command("train")
each_model = pytest.mark.parametrize("model", tm.models.MODELS)
each_rule = pytest.mark.parametrize("rule", tm.optim.RULES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_what_it_says(name, tmp_path):
    assert train("--recipe", name, "--data", "digits", "--limit", 60, "--epochs", 1, "--save", tmp_path / "run") == 0
    _, _, state = checkpoint.load(tmp_path / "run")
    recipe = RECIPES[name]
    assert state["rule"] == recipe.rule and recipe.hyper.items() <= state["hyper"].items()
    assert state["model"] == tm.models.MODELS[recipe.model].__name__
    assert {**recipe.settings, "epochs": 1, "limit": 60}.items() <= state["settings"].items()
    assert json.loads(json.dumps(recipe.arguments)).items() <= state["arguments"].items()


def test_options_override_the_recipe(tmp_path):
    words = ["--recipe", "best", "--no-augment", "--no-normalize", "--lr", 0.1, "--batch-size", 50, "--hidden", 20]
    words += ["--kernels", 3, 4, "--filters", 5, 6, "--rate", 0.1, "--activation", "sigmoid"]
    assert train(*words, "--data", "digits", "--limit", 60, "--epochs", 1, "--save", tmp_path / "run") == 0
    state = checkpoint.load(tmp_path / "run")[2]
    assert state["hyper"] == {"lr": 0.1, "momentum": 0.9}
    expected = {"augment": False, "normalize": False, "batch_size": 50, "lr_decay": 0.8}
    assert expected.items() <= state["settings"].items()
    expected = {"hidden": 20, "kernels": [3, 4], "filters": [5, 6], "rate": 0.1, "activation": "sigmoid"}
    assert expected.items() <= state["arguments"].items()


def test_another_model_and_rule_have_their_own_defaults():
    run = recipes.make_run("digits", recipe="best", model="mlp", rule="sgd", options={}, hyper={}, settings={})
    assert run.optimizer.hyper == {"lr": 0.1} and run.model.arguments == tm.mlp().arguments
    assert run.settings.epochs == 14


def test_the_list_says_what_was_published_and_where(capsys):
    assert train("--list-recipes") == 0
    lines = iter(capsys.readouterr().out.splitlines())
    for name, recipe in RECIPES.items():
        assert next(lines).split(maxsplit=1) == [name, recipe.title] and recipe.published in next(lines)
        assert name == "best" or ' in "' in recipe.published


def test_the_configurable_net_with_tanh_is_lenet():
    lenet, tanh, relu = (RECIPES[name]._replace(title="", published="") for name in ("lenet", "cnn-tanh", "cnn-relu"))
    assert tanh == lenet == relu._replace(arguments={**relu.arguments, "activation": "tanh"})


def test_dropout_is_tested_untrained_and_continues_from_its_checkpoint(tmp_path, capsys):
    words = ["--recipe", "dropout", "--data", "digits", "--limit", 230, "--batch-size", 10]
    assert train(*words, "--save", tmp_path / "whole") == 0
    lines = capsys.readouterr().out.splitlines()
    run = tm.resume(tmp_path / "whole", tm.load("digits"))
    assert [e.epoch for e in run.history] == list(range(1, 9))
    assert [n for e in run.history[:2] for n, _ in e.curve] == [100, 200, 330, 430]  # the loss of every tenth batch
    assert run.model.mean > 0.1 and run.model.std > 0.1  # it computed them
    fresh = tm.dropout_cnn()
    fresh.mean, fresh.std = run.model.mean, run.model.std
    loss, accuracy = tm.evaluate(fresh.initialize(0), tm.load("digits").test)
    first = [line.split()[0] for line in lines]
    assert lines[first.index("0")].split()[3:] == [f"{loss:.4f}", f"{accuracy:.4f}"]
    assert first.index("3") < first.index("continuing") < first.index("4") and (tmp_path / "whole/curves.png").exists()

    assert train(*words, "--epochs", 3, "--save", tmp_path / "part") == 0
    short = tm.resume(tmp_path / "part", tm.load("digits"))
    assert [e.curve for e in short.history] == [e.curve for e in run.history[:3]]


@each_model
@each_rule
def test_every_model_trains_with_every_rule(model, rule, tmp_path, capsys):
    what = ["--model", model, "--opt", rule, "--save", tmp_path]
    assert train(*what, "--data", "digits", "--limit", 300, "--epochs", 1, "--quiet") == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and err == ""  # --quiet: only the last line


def test_accuracies_were_published_for_softmax_regression_on_mnist_only():
    mnist, other = SimpleNamespace(fingerprint=recipes.MNIST), tm.load("digits")
    rmsprop = {"lr": 0.03, "rho": 0.9, "eps": 1e-8}
    assert published_accuracies("softmax", "sgd", {"lr": 0.1}, mnist)[-1] == (87.42, 87.67)
    assert published_accuracies("softmax", "rmsprop", rmsprop, mnist) == FIVE_RULES["rmsprop"]
    assert not published_accuracies("softmax", "rmsprop", {**rmsprop, "eps": 1e-6}, mnist)
    assert not published_accuracies("mlp", "sgd", {"lr": 0.1}, mnist)
    assert not published_accuracies("softmax", "sgd", {"lr": 0.1}, other)
    default_hyper("softmax", "sgd")["lr"] = 7
    assert default_hyper("softmax", "sgd") == {"lr": 0.1}  # each call returns a copy


def test_hold_out_tests_on_the_last_training_images(tmp_path, capsys):
    data = tm.load("digits")
    held = hold_out(data, 100)
    for split, part in ((held.train, slice(-100)), (held.test, slice(-100, None))):
        assert np.array_equal(split.images, data.train.images[part])
        assert np.array_equal(split.labels, data.train.labels[part])
    assert held.fingerprint != data.fingerprint
    words = ["--data", "digits", "--epochs", 1, "--save", tmp_path / "run"]
    assert train(*words, "--hold-out", 100) == 0
    model, _, state = checkpoint.load(tmp_path / "run")
    assert state["history"][-1]["test_accuracy"] == pytest.approx(tm.evaluate(model, held.test)[1])
    assert "instead of the test images, the last 100 training images" in capsys.readouterr().out
    for n in (-1, 0, 1497):
        assert refused(capsys, train(*words, "--hold-out", n), f"1 to all but one can be held out, not {n:,}")
    assert refused(capsys, train("--resume", tmp_path / "run", "--hold-out", 99), "other data")
    assert train("--resume", tmp_path / "run", "--epochs", 2) == 0  # the run holds out the same images


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TINYMNIST_DATA"), reason="needs MNIST in the directory $TINYMNIST_DATA")
@each_model
@each_rule
def test_one_epoch_of_mnist_with_the_defaults_is_enough(model, rule):
    least = {"softmax": 0.80, "mlp": 0.90, "dropout-cnn": 0.92, "lenet": 0.95}[model]
    settings = {"epochs": 1, "limit": 30_000 if model == "lenet" else None}
    run = recipes.make_run(None, model=model, rule=rule, options={}, hyper={}, settings=settings)
    assert run.train().history[-1].test_accuracy >= least
