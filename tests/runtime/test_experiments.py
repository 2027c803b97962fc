"""Recipes and defaults train as they say; compare.py measures what training gives, and keeps what is finished."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from commands import ROOT, command, module

import tinymnist as tm
from tinymnist.experiments import recipes
from tinymnist.experiments.recipes import FIVE_RULES, RECIPES, published_accuracies
from tinymnist.runtime import checkpoint

pytestmark = pytest.mark.usefixtures("new_working_directory")
train, compare, script = command("train"), command("compare"), module("compare")
QUICK = "--data digits --limit 60 --epochs 1 --save run"
COMPARE = "--data digits --limit 300 --epochs 2 --save ."
needs_mnist = pytest.mark.skipif(not os.environ.get("TINYMNIST_DATA"), reason="$TINYMNIST_DATA does not name MNIST")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_what_it_says(name, capsys):
    assert train("--recipe", name, QUICK) == 0
    first, second, *_, last = capsys.readouterr().out.splitlines()
    assert first.endswith(f", seed 0, recipe {name}") and second.endswith("; trains on the first 60 only")
    assert "after 1 epoch; saved in run " in last
    state, recipe = checkpoint.load("run")[2], RECIPES[name]
    assert state["rule"] == recipe.rule and recipe.hyper.items() <= state["hyper"].items()
    assert state["model"] == tm.models.MODELS[recipe.model].__name__
    assert {**recipe.settings, "epochs": 1, "limit": 60}.items() <= state["settings"].items()
    assert json.loads(json.dumps(recipe.arguments)).items() <= state["arguments"].items()


UNIFORM, XAVIER, NORMAL = ({"init": init} for init in (("uniform", 0.07), ("xavier", 2.24), ("normal", 1.0)))
TEN, FIVE = {"epochs": 10, "batch_size": 100}, {"epochs": 5, "batch_size": 64}
OURS, CYCLE = {"lr": 0.05, "momentum": 0.9}, {"normalize": True, "one_cycle": True}
TWO = {"filters": (12, 32), "hidden": 256}
FOUR = {"filters": (8, 12, 12, 16), "kernels": (5, 3, 3, 3), "strides": (2, 1, 2, 1), "hidden": None}
PUBLISHED = {  # model, arguments, rule, hyper-parameters, settings, and a part of Recipe.published
    "softmax-sgd": ("softmax", NORMAL, "sgd", {"lr": 0.1}, FIVE, "87.42 % of the training set and 87.67 %"),
    "softmax-momentum": ("softmax", NORMAL, "momentum", {"lr": 0.2, "momentum": 0.9}, FIVE, "after 5 epochs"),
    "softmax-adagrad": ("softmax", NORMAL, "adagrad", {"lr": 0.9}, FIVE, "Handwritten Digits recognition"),
    "softmax-rmsprop": ("softmax", NORMAL, "rmsprop", {"lr": 0.03, "rho": 0.9}, FIVE, "a notebook"),
    "softmax-adadelta": ("softmax", NORMAL, "adadelta", {"rho": 0.9999}, FIVE, "a notebook"),
    "mlp": ("mlp", UNIFORM, "sgd", {"lr": 0.1}, TEN, "above 0.96"),
    "lenet": ("lenet", {"activation": "tanh", **UNIFORM}, "sgd", {"lr": 0.1}, TEN, "above 0.98"),
    "cnn-tanh": ("lenet", {"activation": "tanh", **UNIFORM}, "sgd", {"lr": 0.1}, TEN, "0.9877"),
    "cnn-relu": ("lenet", {"activation": "relu", **UNIFORM}, "sgd", {"lr": 0.1}, TEN, "0.9878"),
    "mlp-xavier": ("mlp", XAVIER, "sgd", {"lr": 0.02}, {**TEN, "device": "cpu:0,cpu:1"}, "around 0.96, in"),
    "lenet-xavier": (
        "lenet", {"activation": "tanh", "output_activation": "tanh", **XAVIER}, "sgd", {"lr": 0.03}, TEN,
        "tutorial, Gluon version",
    ),
    "dropout": (
        "dropout-cnn", {}, "momentum", {"lr": 0.01, "momentum": 0.5},
        {"epochs": 3, "batch_size": 64, "normalize": True, "log_interval": 10}, "0.97 after 3 epochs",
    ),
    "best": (
        "dropout-cnn", {"filters": (16, 64), "hidden": 256, "rate": 0.2}, "momentum", OURS,
        {"epochs": 14, "batch_size": 100, "augment": True, "normalize": True, "lr_decay": 0.8}, "0.994",
    ),
    "small": ("cnn", FOUR, "momentum", OURS, {"epochs": 40, "batch_size": 100, "augment": True, **CYCLE}, "4,786"),
    "fast": ("cnn", TWO, "momentum", OURS, {"epochs": 3, "batch_size": 100, **CYCLE}, "0.99 in about ten seconds"),
    "fast-digits": ("cnn", TWO, "momentum", OURS, {"epochs": 30, "batch_size": 50, **CYCLE}, "our own"),
}  # fmt: skip


def test_recipes_have_the_settings_that_were_published_or_measured():
    for name, (*settings, published) in PUBLISHED.items():
        assert [*RECIPES[name][2:7]] == settings and published in RECIPES[name].published
    assert PUBLISHED.keys() == RECIPES.keys()


def test_the_published_accuracies_are_those_in_the_documentation():
    text = (ROOT / "docs" / "RESULTS.md").read_text("utf-8")
    rows = re.findall(r"^.{20,} +([\d.]+) +[\d.]+ ± [\d.]+ +([\d.]+) +[\d.]+ ± [\d.]+$", text, re.MULTILINE)
    assert [tuple(map(float, row)) for row in rows] == [row for rule in FIVE_RULES.values() for row in rule]


def test_options_override_the_recipe():
    words = "--no-augment --no-normalize --lr 0.1 --batch-size 50 --hidden 20 --kernels 3 4 --filters 5 6 --rate 0.1"
    assert train("--recipe best --activation sigmoid", words, QUICK) == 0
    state = checkpoint.load("run")[2]
    assert state["hyper"] == {"lr": 0.1, "momentum": 0.9}
    settings = {"augment": False, "normalize": False, "batch_size": 50, "lr_decay": 0.8}
    assert settings.items() <= state["settings"].items()
    arguments = {"hidden": 20, "kernels": [3, 4], "filters": [5, 6], "rate": 0.1, "activation": "sigmoid"}
    assert arguments.items() <= state["arguments"].items()


def test_another_model_and_rule_have_their_own_defaults():
    run = recipes.make_run("digits", recipe="best", model="mlp", rule="sgd", options={}, hyper={}, settings={})
    assert run.optimizer.hyper == {"lr": 0.1} and run.model.arguments == tm.mlp().arguments
    assert run.settings.epochs == 14


def test_the_list_says_what_was_published_and_where(capsys):
    assert train("--list-recipes") == 0
    lines = iter(capsys.readouterr().out.splitlines())
    for name, recipe in RECIPES.items():
        assert next(lines).split(maxsplit=1) == [name, recipe.title] and recipe.published in next(lines)
        assert recipe.published.startswith("nothing, this one is our own") or ' in "' in recipe.published


def test_the_configurable_net_with_tanh_is_lenet():
    lenet, tanh, relu = (RECIPES[name]._replace(title="", published="") for name in ("lenet", "cnn-tanh", "cnn-relu"))
    assert tanh == lenet == relu._replace(arguments={**relu.arguments, "activation": "tanh"})


def test_dropout_is_tested_untrained_and_continues_from_its_checkpoint(capsys):
    words = "--recipe dropout --data digits --limit 230 --batch-size 10"
    assert train(words, "--save whole") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    run = tm.resume("whole")
    assert [e.epoch for e in run.history] == list(range(1, 9))
    assert [n for e in run.history[:2] for n, _ in e.curve] == [100, 200, 330, 430]  # the loss of every tenth batch
    assert run.model.mean > 0.1 and run.model.std > 0.1  # it computed them
    fresh = tm.dropout_cnn()
    fresh.mean, fresh.std = run.model.mean, run.model.std
    loss, accuracy = tm.evaluate(fresh.initialize(0), run.data.test)
    first = [line[0] for line in lines]
    assert lines[first.index("0")][3:] == [f"{loss:.4f}", f"{accuracy:.4f}"]
    assert first.index("3") < first.index("continuing") < first.index("4")
    assert train(words, "--epochs 3 --save part") == 0
    assert [e.curve for e in tm.resume("part").history] == [e.curve for e in run.history[:3]]


def test_accuracies_were_published_for_softmax_regression_on_mnist_only():
    mnist = tm.load() if os.environ.get("TINYMNIST_DATA") else SimpleNamespace(fingerprint=recipes.MNIST)
    rmsprop = {"lr": 0.03, "rho": 0.9, "eps": 1e-8}
    assert published_accuracies("softmax", "sgd", {"lr": 0.1}, mnist)[-1] == (87.42, 87.67)
    assert published_accuracies("softmax", "rmsprop", rmsprop, mnist) == FIVE_RULES["rmsprop"]
    assert not published_accuracies("softmax", "rmsprop", {**rmsprop, "eps": 1e-6}, mnist)
    assert not published_accuracies("mlp", "sgd", {"lr": 0.1}, mnist)
    assert not published_accuracies("softmax", "sgd", {"lr": 0.1}, tm.load("digits"))


def test_hold_out_tests_on_the_last_training_images(capsys):
    data = tm.load("digits")
    held = recipes.hold_out(data, 100)
    for split, part in ((held.train, slice(-100)), (held.test, slice(-100, None))):
        assert all(np.array_equal(found, array[part]) for found, array in zip(split, data.train))
    assert held.fingerprint != data.fingerprint
    assert train("--data digits --epochs 1 --hold-out 100 --save run") == 0
    assert "instead of the test images, the last 100 training images" in capsys.readouterr().out
    model, _, state = checkpoint.load("run")
    assert state["history"][-1]["test_accuracy"] == pytest.approx(tm.evaluate(model, held.test)[1])


@pytest.mark.parametrize("model", tm.models.MODELS)
@pytest.mark.parametrize("rule", tm.optim.RULES)
@pytest.mark.parametrize("mnist", [False, pytest.param(True, marks=[pytest.mark.slow, needs_mnist])])
def test_every_model_learns_with_the_defaults_of_every_rule(mnist, rule, model):
    """In one epoch of MNIST, or three of the embedded digits"""
    least = {"softmax": 0.90, "mlp": 0.90, "dropout-cnn": 0.92, "lenet": 0.95, "cnn": 0.95}[model] if mnist else 0.4
    settings = {"epochs": 1 if mnist else 3, "limit": 30_000 if model == "lenet" else None}
    what = {"model": model, "rule": rule, "options": {}, "hyper": {}, "settings": settings}
    assert recipes.make_run(None if mnist else "digits", **what).train().history[-1].test_accuracy >= least


@pytest.mark.parametrize("rule", tm.optim.RULES)
def test_softmax_regression_trains_smoothly_by_default(rule):
    """From the loss of a guess on. With the published settings, the loss begins above it or jumps by a third."""
    settings = {"epochs": 6}
    run = recipes.make_run("digits", model="softmax", rule=rule, options={}, hyper={}, settings=settings).train()
    losses = [np.log(10), *(epoch.test_loss for epoch in run.history)]
    assert all(after < 1.1 * before for before, after in zip(losses, losses[1:]))


def test_records_prints_the_accuracy_of_each_seed_and_where_the_time_goes():
    words = "fast-digits --data digits --epochs 2 --limit 60 --seeds 2 --plot records.png"
    command = [sys.executable, ROOT / "docs" / "records.py", *words.split()]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [
        100 * checkpoint.newest(path)[0]["history"][-1]["test_accuracy"] for path in sorted(Path("runs").iterdir())
    ]
    accuracies = re.findall(r"seed \d: (\S+) % after", out)
    assert accuracies == [f"{accuracy:.2f}" for accuracy in found]
    mean, low, high = re.search(r"fast-digits: (\S+) ± \S+ %, (\S+) to (\S+)\n", out).groups()
    assert (float(low), float(high)) == (min(map(float, accuracies)), max(map(float, accuracies)))
    assert float(mean) == pytest.approx(np.mean(found), abs=0.01)
    total, *parts = map(float, re.search(r": (\S+) s,.*start (\S+), training (\S+), rest (\S+)\n", out).groups())
    assert min(parts) > 0 and sum(parts) == pytest.approx(total, abs=0.02)
    assert Path("records.png").stat().st_size > 10_000


# compare.py


def read_results():
    return json.loads(Path("compare.json").read_text())["results"]


def test_accuracies_are_those_of_the_model_after_each_epoch():
    assert compare(COMPARE, "--rules momentum:lr=0.05,momentum=0.8 --seeds 2 --normalize") == 0
    assert Path("compare.png").read_bytes().startswith(b"\x89PNG")
    (result,) = read_results()
    assert result["hyper"] == {"lr": 0.05, "momentum": 0.8} and [run["seed"] for run in result["runs"]] == [0, 1]
    data = tm.load("digits")
    sets = {"training": tm.Split(data.train.images[:300], data.train.labels[:300]), "test": data.test}
    for seed, epochs in np.ndindex(2, 2):
        model, rule = tm.softmax_regression(**recipes.FIVE_RULES_INIT), tm.Optimizer("momentum", lr=0.05, momentum=0.8)
        tm.fit(model, rule, data, epochs=epochs + 1, batch_size=64, seed=seed, limit=300, normalize=True)
        for name, split in sets.items():
            assert result["runs"][seed][name][epochs] == pytest.approx(100 * tm.evaluate(model, split)[1], abs=6e-5)


def test_published_accuracies_are_next_to_measured_ones(capsys, monkeypatch):
    monkeypatch.setattr(recipes, "MNIST", tm.load("digits").fingerprint)
    assert compare("--data digits --epochs 6 --save . --rules sgd sgd:lr=0.2") == 0
    lines, run = capsys.readouterr().out.splitlines(), read_results()[0]["runs"][0]
    first = lines.index("sgd (lr 0.1)") + 1
    assert lines[first].split() == ["1", "80.18", f"{run['training'][0]:.2f}", "81.41", f"{run['test'][0]:.2f}"]
    assert lines[first + 4].split()[:2] == ["5", "87.42"]
    assert lines[first + 5].split()[:2] == ["6", "–"]  # only five epochs were published
    assert lines[lines.index("sgd (lr 0.2)") + 1].split()[:2] == ["1", "–"]
    assert compare(COMPARE, "--rules sgd") == 0
    assert "80.18" not in capsys.readouterr().out  # nothing was published about a part of the data


def test_softmax_regression_is_compared_as_published_and_other_models_by_their_defaults():
    for model, lr in (("softmax", 0.9), ("mlp", 0.02)):
        assert compare(COMPARE, "--rules adagrad --model", model) == 0
        assert read_results()[0]["hyper"]["lr"] == lr


def test_all_five_rules_train_any_model():
    assert compare(COMPARE, "--model mlp --activation tanh --batch-size 50") == 0
    assert [result["rule"] for result in read_results()] == list(tm.optim.RULES)


def test_table_of_means_and_standard_deviations_fits_80_columns(capsys):
    runs = [{"training": [value] * 10, "test": [80] * 10} for value in (0, 100.0, 50)]
    rule = tm.Optimizer("rmsprop", lr=0.0001, rho=0.9999, eps=1e-10)
    script.print_table([{"label": str(rule), "published": [(100, 99.5)] * 10, "runs": runs}])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13 and max(map(len, lines)) <= 80
    assert " ".join(lines[-1].split()) == "10 100.00 50.00 ± 50.00 99.50 80.00 ± 0.00"


def test_rule_is_its_name_and_hyper_parameters():
    for text, hyper in {
        "adagrad:eps=1e-3": {"lr": 0.9, "eps": 1e-3},
        "adagrad": {"lr": 0.9, "eps": 1e-7},  # still the default
        "momentum:lr=1, momentum=0.5": {"lr": 1, "momentum": 0.5},
        "adadelta:rho=0.9": {"rho": 0.9, "eps": 1e-5},
    }.items():
        rule = script.parse_rule(text, "softmax")
        assert (rule.name, rule.hyper) == (text.split(":")[0], hyper)


@pytest.mark.parametrize("others", [[], ["adagrad (lr 0.02, eps 1e-07)", "sgd (lr 0.05)"]])
def test_rule_that_diverges_does_not_cost_the_results_of_others(others, capsys):
    assert compare(COMPARE, "--model mlp --rules sgd:lr=1e30", "adagrad sgd:lr=0.05" if others else "") == 1
    assert capsys.readouterr().err.startswith("sgd (lr 1e+30): the loss of epoch 1")
    assert [result["label"] for result in read_results()] == others if others else not os.listdir()


def test_finished_rules_are_kept_after_ctrl_c(capsys, monkeypatch):
    measured = {"training": [50.0, 60.0], "test": [50.0, 60.0]}
    monkeypatch.setattr(script, "measure_accuracies", Mock(side_effect=[measured, KeyboardInterrupt]))
    assert compare(COMPARE, "--rules sgd adagrad") == 130
    assert capsys.readouterr().err == "stopped; compare.json has the rules that were finished\n"
    assert [result["rule"] for result in read_results()] == ["sgd"]


def test_only_a_run_with_held_out_images_is_resumed_with_some(tmp_path):
    """Other data may have more images than those that the run began with."""
    digits = tm.load("digits")
    small = digits._replace(train=tm.Split(*(array[:300] for array in digits.train)))
    rule = tm.Optimizer("sgd", lr=0.1)
    tm.fit(tm.softmax_regression(), rule, small, epochs=1, save=tmp_path / "small")
    with pytest.raises(tm.DataError) as caught:
        recipes.resume_run(tmp_path / "small", "digits")
    assert "instead of" not in str(caught.value)
    tm.fit(tm.softmax_regression(), rule, recipes.hold_out(digits, 200), epochs=1, save=tmp_path / "held")
    assert len(recipes.resume_run(tmp_path / "held", "digits").data.test.labels) == 200
