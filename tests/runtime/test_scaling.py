"""How many machines still gain, by the arithmetic of scripts/scaling.py, and what its options may be."""

import subprocess

import pytest
from commands import command, module, refused


@pytest.mark.parametrize(
    "share, exchange, count, gain",
    [
        ((0, 1), (10, 0), 1, 1),  # an exchange takes as long as all of the batch
        ((5, 0), (0, 0), 1, 1),  # a share takes as long as the batch
        ((0, 1), (0, 0), 21, 21),  # an exchange takes no time: every machine gains, up to the last that is looked at
        ((1, 1), (1, 0), 14, 77 / 19),  # 2 + 10 / m: 14 are 2.02 % faster than 13, and 15 are 1.8 % faster than 14
    ],
)
def test_how_many_machines_gain(share, exchange, count, gain):
    found = module("scaling").gaining(share, exchange, 100, batch=10, network=(float("inf"), 0))
    assert found == (count, pytest.approx(gain))


@pytest.mark.parametrize("steps", ["9", "5", "0", "-1"])
def test_steps_are_enough_for_a_quartile(monkeypatch, capsys, steps):
    monkeypatch.setattr(subprocess, "run", None)
    assert refused(capsys, command("scaling")("--steps", steps), "--steps must be 10 or more", f"not {steps}")


def test_models_are_those_there_are(capsys):
    with pytest.raises(SystemExit) as ended:
        command("scaling")("--models", "mlp", "nonsense")
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "invalid choice: 'nonsense'" in error and "dropout-cnn" in error
