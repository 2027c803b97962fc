"""docs/mistakes.py: each mistake is one changed line. train.py names likely causes when a training fails."""

import ast
import importlib.util
import inspect
import textwrap

import numpy as np
import pytest
from commands import ROOT, command
from runs import digits

import tinymnist as tm

spec = importlib.util.spec_from_file_location("mistakes", ROOT / "docs" / "mistakes.py")
mistakes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mistakes)


@pytest.mark.parametrize("title", mistakes.MISTAKES)
def test_a_mistake_is_one_changed_line(title):
    both, wrongs = mistakes.MISTAKES[title]
    for wrong in wrongs:
        text = mistakes.LOOP
        for right, other in both:
            text = text.replace(right, other)
        changed = text.replace(*wrong)
        ast.parse(changed)
        lines = [*zip(text.splitlines(), changed.splitlines())]
        assert sum(a != b for a, b in lines) == 1 and text.count(wrong[0]) == 1


def test_the_right_loop_is_the_lessons():
    data, seed = digits(train=200), 3
    accuracy = mistakes.train([], data, 2, seed)[-1]
    model = tm.mlp().initialize(seed)
    tm.train(model, tm.Optimizer("sgd", lr=0.1), data.train, epochs=2, batch_size=50, seed=seed)
    assert tm.evaluate(model, data.test)[1] == accuracy
    loop = textwrap.dedent(inspect.getsource(tm.train))
    assert all(line in loop for line in ("with autograd.record():", "loss.backward()"))


def test_the_figure_shows_every_mistake(tmp_path):
    curves = {title: [[0.5, 0.9], *([0.1, 0.2] for _ in wrongs)] for title, (_, wrongs) in mistakes.MISTAKES.items()}
    path = mistakes.draw(curves, "mistakes", tmp_path / "mistakes.png")
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 200_000
    assert (ROOT / "docs" / "mistakes.png").stat().st_size < 200_000
    text = (ROOT / "docs" / "MISTAKES.md").read_text("utf-8")
    assert all(f"| {title} |" in text for title in curves) and len(curves) == 12


def large(model, *args, **options):
    model.allocate().weights[:] = tm.backend.nd.array(100 * np.random.default_rng(0).normal(size=model.size))
    return model


FAILURES = [  # a command, and what replaces Sequential.initialize
    ("--lr 1e-5", None),
    ("--model mlp --lr 10", None),
    ("--model mlp --lr 1e-5", None),
    ("--model mlp --opt momentum --lr 5", None),
    ("--model lenet --lr 10", None),
    ("--model lenet --opt rmsprop --lr 0.1", None),
    ("--model dropout-cnn --lr 1e-5", None),
    ("--model mlp", lambda model, *args, **options: model.allocate()),
    ("--model lenet", lambda model, *args, **options: model.allocate()),
    ("--model mlp", large),
]


@pytest.mark.parametrize("number", range(len(FAILURES)))
@pytest.mark.usefixtures("new_working_directory")
def test_a_failed_training_names_likely_causes(number, monkeypatch, capsys):
    words, initialize = FAILURES[number]
    if initialize:
        monkeypatch.setattr(tm.layers.Sequential, "initialize", initialize)
    command("train")(words, "--data digits --epochs 2 --quiet")
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and ("likely causes: a learning rate" in error or "try a smaller one" in error), error


@pytest.mark.usefixtures("new_working_directory")
@pytest.mark.parametrize("words", ["", "--model mlp --opt adadelta", "--model lenet", "--model dropout-cnn"])
def test_a_healthy_training_names_none(words, capsys):
    assert command("train")(words, "--data digits --epochs 2 --quiet") == 0
    assert capsys.readouterr().err == ""
