"""scripts/cli.py: every script ends with a sentence and an exit status. train.py stands for all scripts here."""

import os
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest
from commands import ROOT, SCRIPT, finish, module, start

import tinymnist as tm
from tinymnist.backend import mx
from tinymnist.runtime import checkpoint

cli = module("cli")
RUN = ["--data", "digits", "--limit", 200, "--epochs", 2, "--save", "run"]


@pytest.fixture(autouse=True)
def new_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "error, status, sentence",
    [
        (tm.DataError("file: is bad"), 2, "file: is bad"),
        (ValueError("lr is bad"), 2, "lr is bad"),
        (ImportError("matplotlib is missing"), 2, "matplotlib is missing"),
        (IsADirectoryError(21, "Is a directory", "x.csv"), 2, "x.csv: Is a directory"),
        (tm.Diverged("the loss is nan"), 1, "the loss is nan"),
        (MemoryError(), 1, "out of memory"),
        (mx.MXNetError("Traceback:\n  line\nMXNetError: Memory allocation failed\n"), 1, "Memory allocation failed"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (KeyboardInterrupt(signal.SIGTERM), 143, "stopped by Ctrl-C"),
    ],
    ids=repr,
)
def test_an_error_becomes_a_sentence_and_a_status(error, status, sentence, capsys):
    def work():
        raise error

    assert cli.run(work) == status
    err = capsys.readouterr().err
    assert err.endswith(f"{sentence}\n") and err.count("\n") == 1


def test_work_without_an_error_decides_the_status(capsys):
    assert cli.run(lambda: None) == 0 and cli.run(lambda: 3) == 3
    assert cli.run(lambda: cli.Parser().parse_args(["--unheard-of"])) == 2
    assert capsys.readouterr().err == "unrecognized arguments: --unheard-of; --help lists the options\n"


def test_a_command_has_relative_paths_where_possible(monkeypatch):
    monkeypatch.setattr(sys, "executable", str(ROOT / "a venv" / "bin" / "python"))
    monkeypatch.chdir(ROOT)
    assert cli.make_command(SCRIPT, "--epochs", 8) == "'a venv/bin/python' scripts/train.py --epochs 8"
    monkeypatch.chdir(ROOT / "scripts")
    assert shlex.split(cli.make_command(SCRIPT)) == [sys.executable, "train.py"]


def test_a_python_without_the_packages_says_what_to_type():
    status, out, err = finish(start("--opt", "adagrad", python=["-S", SCRIPT]))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"{sys.executable} cannot import tinymnist: No module named 'tinymnist'. Type in {ROOT}: ")
    assert err.endswith(".venv/bin/python scripts/train.py --opt adagrad\n")


def test_ctrl_c_during_the_import_prints_no_traceback():
    run = start("--data", "digits")
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    status, out, err = finish(run)
    assert status in (-signal.SIGINT, 130) and out == "" and "Traceback" not in err


@pytest.mark.parametrize("closed", [1, 2])
def test_standard_output_and_standard_error_may_be_closed(closed):
    streams = {"stdout": None, "stderr": None, "preexec_fn": lambda: os.close(closed)}
    assert finish(start(*RUN, **streams))[0] == 0
    assert checkpoint.newest("run")[0]["epoch"] == 2


def test_a_reader_that_ends_stops_the_script():
    """train.py | head -4: the epoch that could not be printed is saved."""
    run = start("--data", "digits", "--epochs", 500, "--save", "run")
    for _ in range(4):
        run.stdout.readline()
    run.stdout.close()
    run.stdout = None
    assert finish(run) == (2, None, "standard output cannot be written: Broken pipe\n")
    assert checkpoint.newest("run")[0]["epoch"] >= 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_output_is_an_error():
    with open("/dev/full", "w") as full:
        run = start(*RUN, stdout=full)
        assert finish(run) == (2, None, "standard output cannot be written: No space left on device\n")


def test_a_terminal_without_dashes_prints_question_marks():
    """adadelta has no learning rate, which is printed as –"""
    status, out, err = finish(start(*RUN, "--opt", "adadelta", env={**os.environ, "PYTHONIOENCODING": "ascii"}))
    assert (status, err) == (0, "") and " ? " in out
