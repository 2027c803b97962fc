"""The benchmark runs every contender that is installed, and its figures are of one kind."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import command, module, refused

ROOT = Path(__file__).parents[2]


def bench(*options):
    command = [sys.executable, ROOT / "scripts" / "bench.py", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True)


def test_contenders_stand_side_by_side(tmp_path):
    files = {"--json": tmp_path / "bench.json", "--plot": tmp_path / "bench.png"}
    options = [word for pair in files.items() for word in pair]
    ended = bench(
        "--data",
        ROOT / "tinymnist" / "datasets" / "digits",
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


DIGITS = ROOT / "tinymnist" / "datasets" / "digits"
NAMES = [
    f"{part}-ubyte.gz" for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
]


@pytest.mark.parametrize("name", NAMES)
def test_without_one_of_the_four_files(name, tmp_path, capsys):
    for other in set(NAMES) - {name}:
        shutil.copy(DIGITS / other, tmp_path)
    assert refused(capsys, command("bench")("--data", tmp_path), f"{tmp_path}: there is no {name}")


@pytest.mark.parametrize(
    "options, named",
    [
        (["--seconds", "nan"], ["--seconds nan", "positive"]),
        (["--seconds", "inf"], ["--seconds inf"]),
        (["--seconds", 0], ["--seconds 0.0"]),
        (["--rounds", 0], ["--rounds 0", "at least one"]),
        (["--rounds", 0, "--pixels"], ["--rounds 0"]),
        (["--threads", 2, 0], ["--threads 0", "1 or more"]),
        (["--only", "nothing"], ["--only nothing", "softmax sgd, ", "epoch from the loader"]),
        (["--json", "nowhere/a.json"], ["--json nowhere/a.json", "no such directory"]),
        (["--plot", "nowhere/a.png"], ["--plot nowhere/a.png", "no such directory"]),
        (["--json", "."], ["--json .", "is a directory"]),
    ],
)
def test_what_is_refused_at_the_start(options, named, tmp_path, monkeypatch, capsys):
    script = module("bench")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "measure", lambda *_: pytest.fail("it has begun to measure"))
    monkeypatch.setattr(script, "pixels", lambda *_: pytest.fail("it has begun to measure"))
    assert refused(capsys, script.main(["--data", str(DIGITS), *map(str, options)]), *named)


def test_pixels_need_no_data(tmp_path, monkeypatch):
    script = module("bench")
    monkeypatch.setattr(script, "pixels", lambda rounds: 0)
    assert script.main(["--data", str(tmp_path), "--pixels"]) == 0


def test_without_tinymnist_there_is_nothing_to_compare(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_bytes(b"")
    ended = bench("--data", tmp_path, "--only", "mlp", "--threads", 1)
    *others, last = ended.stderr.splitlines()
    assert (ended.returncode, last) == (2, "without tinymnist there is nothing to compare in mlp sgd")
    assert others[0].startswith("tinymnist is left out of mlp sgd: ") and "Traceback" not in ended.stderr


def test_figures_are_written_before_they_are_printed(tmp_path, monkeypatch, capsys):
    script = module("bench")
    result = {"contenders": {"tinymnist": {"ms": [1.0], "mb": 2.0, "threads": 1}}, "product GFLOP/s": None}
    monkeypatch.setattr(script, "measure", lambda *_: result)

    def fails(report):
        raise BrokenPipeError("no reader")

    monkeypatch.setattr(script, "table", fails)
    options = ["--data", str(DIGITS), "--only", "mlp", "--json", str(tmp_path / "bench.json")]
    assert refused(capsys, script.main(options), "no reader")
    assert json.loads((tmp_path / "bench.json").read_text()) == {"mlp sgd": result}
