"""A training process is killed at random moments and started again. Nothing is lost, and the result is the same."""

import random
import subprocess
import sys
import time

import pytest
from commands import ROOT

from tinymnist.runtime import checkpoint

RUN = "--model dropout-cnn --opt momentum --augment --normalize --lr-decay 0.9"
DATA = "--data digits --limit 330 --batch-size 10 --epochs 4"


def start(directory):
    """Start a run, or resume it if it was saved before."""
    saved = checkpoint.list_checkpoints(directory)
    options = ["--resume", directory] if saved else [*RUN.split(), *DATA.split(), "--save", directory]
    command = [sys.executable, "-u", ROOT / "scripts" / "train.py", *options, "--save-every", "1"]
    return subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process, status):
    """The last line that was printed, without the times."""
    out, err = process.communicate(timeout=300)
    expected = err == "" or "has ended" in err or "near that of guessing" in err  # so short a run may well guess
    assert process.returncode in status and expected, err
    return "".join(out.splitlines()[-1:]).split(" after ")[0]


def kill(directory, seconds):
    """Kill a run within so many seconds after it has read its data. Returns whether it had not ended before."""
    process = start(directory)
    try:
        while not process.stdout.readline().startswith("epoch"):
            assert process.poll() is None, process.stderr.read()
        time.sleep(seconds)
    finally:
        process.kill()
    wait_for(process, (0, -9))
    if checkpoint.list_checkpoints(directory):
        assert not checkpoint.newest(directory)[2]  # none is damaged
    return process.returncode == -9


def read_result(directory):
    state, arrays, damaged = checkpoint.newest(directory)
    assert not damaged
    for epoch in state["history"]:
        del epoch["seconds"], epoch["speed"]
    tensors = {file: {name: a.asnumpy().tobytes() for name, a in some.items()} for file, some in arrays.items()}
    return tensors, state["epoch"], state["history"]


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_again_and_again_gives_the_same_result(times, tmp_path):
    began = time.monotonic()
    figures = wait_for(start(tmp_path / "whole"), (0,))
    patience = min(1.0, (time.monotonic() - began) / 3)
    rng, killed, number = random.Random(0), 0, 0
    while killed < times:
        directory, number = tmp_path / f"run-{number}", number + 1
        while killed < times and kill(directory, rng.uniform(0, patience)):
            killed += 1
        assert wait_for(start(directory), (0,)) == figures
        assert read_result(directory) == read_result(tmp_path / "whole")
        names = [path.name for path in checkpoint.list_checkpoints(directory)]
        assert names[:2] == ["epoch-0004", "epoch-0003-batch-00032"], names  # a process killed here leaves a third one
        assert (directory / "curves.png").exists() and not list(directory.glob("*.part"))
