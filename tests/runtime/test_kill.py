"""A training process is killed at random moments, and started again: nothing is lost, and nothing is different."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinymnist.runtime import checkpoint

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
WHAT = ["--model", "dropout-cnn", "--opt", "momentum", "--augment", "--normalize", "--lr-decay", "0.9"]
SIZE = ["--data", "digits", "--limit", "330", "--batch-size", "10", "--epochs", "4"]


def start(directory, *, resume):
    options = ["--resume", directory] if resume else [*WHAT, *SIZE, "--save", directory]
    command = [sys.executable, "-u", SCRIPT, *options, "--save-every", "1"]
    return subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process):
    """The last line of a run that nobody kills: its figures"""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and (err == "" or "has ended" in err), err
    return out.splitlines()[-1].split(" after ")[0]


def result(directory):
    state, arrays, damaged = checkpoint.newest(directory)
    assert not damaged
    for epoch in state["history"]:
        del epoch["seconds"], epoch["speed"]
    tensors = {file: {name: a.asnumpy().tobytes() for name, a in some.items()} for file, some in arrays.items()}
    return tensors, state["epoch"], state["history"]


def killed(directory, rng, patience):
    """Kills a run at a random moment after it has read its data; -> whether that was before its end"""
    process = start(directory, resume=bool(checkpoint.checkpoints(directory)))
    try:
        while not process.stdout.readline().startswith("epoch"):
            assert process.poll() is None, process.stderr.read()
        time.sleep(rng.uniform(0, patience))
    finally:
        process.kill()
    _, err = process.communicate()
    assert err == "" or "has ended" in err, err
    if checkpoint.checkpoints(directory):
        assert not checkpoint.newest(directory)[2]  # not one damaged
    return process.returncode == -9


def kill(tmp_path, times):
    whole = tmp_path / "whole"
    began = time.monotonic()
    figures = finished(start(whole, resume=False))
    patience = min(1.0, (time.monotonic() - began) / 3)
    rng, count, number = random.Random(0), 0, 0
    while count < times:
        directory, number = tmp_path / f"run-{number}", number + 1
        while count < times and killed(directory, rng, patience):
            count += 1
        assert finished(start(directory, resume=bool(checkpoint.checkpoints(directory)))) == figures
        assert result(directory) == result(whole)
        assert sorted(path.name for path in directory.iterdir())[:2] == ["curves.png", "epoch-0003-batch-00032"]
        assert not list(directory.glob("*.part"))


def test_killed_5_times(tmp_path):
    kill(tmp_path, 5)


@pytest.mark.slow
def test_killed_50_times(tmp_path):
    kill(tmp_path, 50)
