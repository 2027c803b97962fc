"""The arithmetic of scripts/scaling.py, and its options."""

import subprocess

import pytest
from commands import command, module, refused


@pytest.mark.parametrize(
    "compute, exchange, count, speedup",
    [
        ((0, 1), (10, 0), 1, 1),  # an exchange takes as long as the whole batch
        ((5, 0), (0, 0), 1, 1),  # a share takes as long as the whole batch
        ((0, 1), (0, 0), 21, 21),  # an exchange takes no time, so that every machine helps, up to the last one
        ((1, 1), (1, 0), 14, 77 / 19),  # 2 + 10 / m seconds: 14 are 2.02 % faster than 13, 15 are 1.8 % faster than 14
    ],
)
def test_how_many_machines_make_training_faster(compute, exchange, count, speedup):
    found = module("scaling").count_machines(compute, exchange, 100, batch=10, network=(float("inf"), 0))
    assert found == (count, pytest.approx(speedup))


def test_the_line_has_the_smallest_relative_errors():
    assert module("scaling").fit_line([1, 2, 4], [5, 7, 11]) == pytest.approx((3, 2))
    assert module("scaling").fit_line([1, 2], [1, 4]) == (0, pytest.approx(3))


def test_wrong_options_are_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "Popen", None)
    for steps in ("9", "5", "0", "-1"):
        assert refused(capsys, command("scaling")("--steps", steps), "--steps must be 10 or more", f"not {steps}")
    assert refused(capsys, command("scaling")("--models", "mlp", "cake"), "invalid choice: 'cake'", "dropout-cnn")
