"""The scripts as functions: command("train")(["--model", "lenet"]) returns the exit status."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def module(name):
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def command(name):
    main = module(name).main
    return lambda *words: main([str(word) for word in words])


def refused(capsys, status, *named):
    """The command ended with 2 and one sentence on stderr that has all of `named` in it."""
    error = capsys.readouterr().err
    assert status == 2, error
    assert error.count("\n") == 1 and "Traceback" not in error, error
    assert all(part in error for part in named), error
    return True
