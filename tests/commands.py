"""The scripts as functions: command("train")("--model", "lenet") returns the exit status."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
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
