"""Imports point one way: experiments → runtime → datasets → the lesson. The lesson imports only the lesson."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEVELS = {"datasets": 1, "runtime": 2, "experiments": 3}  # the lesson, tinymnist/*.py, is level 0
FILES = [file.relative_to(ROOT).as_posix() for file in ROOT.glob("tinymnist/**/*.py")]


def find_upward_imports(file, text):
    """The imported modules of tinymnist, or of scripts, that are above the level of the file."""
    level, found = LEVELS.get(file.split("/")[1], 0), []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            paths = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for path in paths:
            package, _, rest = path.partition(".")
            name = rest.split(".")[0]
            is_lesson = (ROOT / "tinymnist" / f"{name}.py").exists()
            its_level = 0 if is_lesson else LEVELS.get(name, LEVELS["runtime"])  # __init__.py imports the runtime
            if (package == "tinymnist" and its_level > level) or (ROOT / "scripts" / f"{package}.py").exists():
                found.append(path)
    return found


@pytest.mark.parametrize("file", sorted({*FILES} - {"tinymnist/__init__.py"}))
def test_imports_point_one_way(file):
    assert find_upward_imports(file, (ROOT / file).read_text("utf-8")) == []


@pytest.mark.parametrize(
    "file, line",
    [
        ("tinymnist/train.py", "from tinymnist.datasets import load"),
        ("tinymnist/train.py", "from tinymnist import runtime"),
        ("tinymnist/train.py", "from tinymnist import fit"),
        ("tinymnist/train.py", "def f():\n    import tinymnist as tm"),
        ("tinymnist/datasets/load.py", "from tinymnist.runtime.run import Run"),
        ("tinymnist/datasets/load.py", "import numpy, tinymnist.experiments.figures"),
        ("tinymnist/runtime/run.py", "from tinymnist.experiments import figures"),
        ("tinymnist/experiments/figures.py", "import bench"),
    ],
)
def test_an_upward_import_is_found(file, line):
    assert len(find_upward_imports(file, line)) == 1


def test_downward_imports_are_allowed():
    line = "import numpy\nfrom tinymnist import datasets, ops\nfrom tinymnist.datasets.load import load"
    assert find_upward_imports("tinymnist/runtime/run.py", line) == []
    assert {"tinymnist/train.py", "tinymnist/runtime/run.py"} <= set(FILES)
