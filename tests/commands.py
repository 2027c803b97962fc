"""The scripts as functions: command("train")("--model lenet") returns the exit status; train.py as a process."""

import shlex
import signal
import subprocess
import sys
from importlib import import_module as module
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = str(ROOT / "scripts" / "train.py")
DIGITS = ROOT / "tinymnist" / "datasets" / "digits"
sys.path.insert(0, str(ROOT / "scripts"))


def split(words):
    """The arguments of a command, as a shell splits them"""
    return [argument for word in words for argument in shlex.split(str(word))]


def command(name):
    return lambda *words: module(name).main(split(words))


def refused(capsys, status, *named):
    """Whether the command ended with status 2 and one sentence on stderr that contains all of `named`."""
    error = capsys.readouterr().err
    assert status == 2, error
    assert error.count("\n") == 1 and "Traceback" not in error, error
    assert all(part in error for part in named), error
    return True


def start(*words, python=("-u", SCRIPT), **options):
    """train.py as a process, in which Ctrl-C does what it does in a terminal."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    options = {**pipes, "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options}
    return subprocess.Popen([sys.executable, *python, *split(words)], **options)


def finish(process):
    """Wait for a process, for five minutes at most; return its status, its output and its errors."""
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err
