"""The scripts as functions: command("train")("--model", "lenet") returns the exit status; train.py as a process."""

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = str(ROOT / "scripts" / "train.py")
PATIENCE = 300  # seconds to wait for a process on a busy machine
sys.path.append(str(ROOT / "scripts"))  # where the scripts find cli.py


def module(name):
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def command(name):
    main = module(name).main
    return lambda *words: main([str(word) for word in words])


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
    return subprocess.Popen([sys.executable, *python, *map(str, words)], **options)


def finish(process):
    """Wait for a process; return its status, its output and its errors."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err
