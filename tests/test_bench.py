"""The benchmark runs every contender that is installed, and its figures are of one kind."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def bench(*options):
    command = [sys.executable, ROOT / "scripts" / "bench.py", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True)


def test_contenders_stand_side_by_side(tmp_path):
    files = {"--json": tmp_path / "bench.json", "--plot": tmp_path / "bench.png"}
    options = [word for pair in files.items() for word in pair]
    ended = bench(
        "--data",
        ROOT / "tinymnist" / "digits",
        "--only",
        "mlp",
        "--rounds",
        2,
        "--seconds",
        0.02,
        "--threads",
        1,
        *options,
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(files["--json"].read_text())["mlp sgd"]["contenders"]
    assert set(report) >= {"tinymnist", "tinymnist --no-compile", "Gluon", "Gluon hybridized"}
    assert all(len(result["ms"]) == 2 and min(result["ms"]) > 0 and result["mb"] > 50 for result in report.values())
    assert 0 < report["tinymnist"]["share of product rate"] < 1.5
    assert files["--plot"].stat().st_size > 1000 and "mlp sgd" in ended.stdout


def test_without_data(tmp_path):
    ended = bench("--data", tmp_path)
    assert ended.returncode == 2 and "there is no train-images-idx3-ubyte.gz" in ended.stderr
