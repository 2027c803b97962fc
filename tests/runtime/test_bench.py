"""The benchmark runs every contender that is installed, and reports the others in one sentence."""

import argparse
import json
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
from commands import ROOT, command, module, refused

DIGITS = ROOT / "tinymnist" / "datasets" / "digits"
FILES = module("bench").FILES


def bench(*options):
    words = [sys.executable, ROOT / "scripts" / "bench.py", "--only", "mlp", "--threads", 1, *options]
    return subprocess.run([str(word) for word in words], capture_output=True, text=True)


def test_every_installed_contender_has_times_and_a_peak_of_memory(tmp_path):
    file, picture = tmp_path / "bench.json", tmp_path / "bench.png"
    ended = bench("--data", DIGITS, "--rounds", 2, "--seconds", 0.02, "--json", file, "--plot", picture)
    assert ended.returncode == 0, ended.stderr
    missing = "left out: PyTorch cannot run 'mlp sgd': ModuleNotFoundError: No module named 'torch'"
    assert ended.stderr.splitlines() == ([] if find_spec("torch") else [missing])
    contenders = json.loads(file.read_text())["mlp sgd"]["contenders"]
    assert [*contenders.keys() ^ set(module("bench").CONTENDERS)] == ([] if find_spec("torch") else ["PyTorch"])
    for result in contenders.values():
        assert len(result["ms"]) == 2 and min(result["ms"]) > 0 and result["mb"] > 50 and result["threads"] == 1
    assert 0 < contenders["tinymnist"]["share of product rate"] < 1.5
    assert "mlp sgd" in ended.stdout and max(map(len, ended.stdout.splitlines())) <= 100
    assert picture.stat().st_size > 1000


def test_the_legend_names_the_contenders_that_ran():
    results = {title: {"ms": [1.0]} for title in ("tinymnist", "Gluon")}
    legend = module("bench").draw_chart({"mlp sgd": {"contenders": results}}).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["tinymnist", "Gluon"]


def test_a_worker_that_cannot_start_is_reported_in_one_sentence():
    args = argparse.Namespace(torch_python=shutil.which("true"), data=str(DIGITS), seconds=1)
    with pytest.raises(RuntimeError, match=r"^PyTorch cannot run 'mlp sgd': its process ended without an answer$"):
        module("bench").Worker("PyTorch", 1, "mlp sgd", args, "peer.npz")


def test_the_products_of_a_step_are_counted():
    _, size = module("bench").measure_products("lenet tanh sgd")
    layers = [25 * 20 * 576, 500 * 50 * 64, 800 * 500, 500 * 10]
    assert size * 1e9 == pytest.approx(2 * 100 * (3 * sum(layers) - layers[0]))


@pytest.mark.parametrize("name", FILES)
def test_all_four_files_are_needed(name, tmp_path, capsys):
    for other in set(FILES) - {name}:
        shutil.copy(DIGITS / other, tmp_path)
    assert refused(capsys, command("bench")("--data", tmp_path), f"{tmp_path}: there is no {name}")


@pytest.mark.parametrize(
    "options, named",
    [
        (["--seconds", "nan"], ["--seconds is nan", "positive"]),
        (["--seconds", "inf"], ["--seconds is inf"]),
        (["--seconds", 0], ["--seconds is 0.0"]),
        (["--rounds", 0], ["--rounds is 0", "at least one"]),
        (["--rounds", 0, "--pixels"], ["--rounds is 0"]),
        (["--threads", 2, 0], ["--threads has 0", "1 or more"]),
        (["--only", "nothing"], ["--only nothing", "softmax sgd, ", "epoch from the loader"]),
        (["--torch-python", "nowhere/python"], ["--torch-python nowhere/python", "no such program"]),
        (["--json", "nowhere/a.json"], ["--json nowhere/a.json", "no such directory"]),
        (["--plot", "nowhere/a.png"], ["--plot nowhere/a.png", "no such directory"]),
        (["--json", "."], ["--json .", "it is a directory"]),
    ],
)
def test_bad_options_are_refused_before_anything_is_measured(options, named, tmp_path, monkeypatch, capsys):
    script = module("bench")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "measure", lambda *_: pytest.fail("it measures"))
    monkeypatch.setattr(script, "print_pixel_costs", lambda *_: pytest.fail("it measures"))
    assert refused(capsys, script.main(["--data", str(DIGITS), *map(str, options)]), *named)


def test_pixels_need_no_data(tmp_path, monkeypatch):
    script = module("bench")
    monkeypatch.setattr(script, "print_pixel_costs", lambda rounds: 0)
    assert script.main(["--data", str(tmp_path), "--pixels"]) == 0


def test_nothing_is_measured_if_tinymnist_cannot_run(tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes(b"")
    ended = bench("--data", tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("tinymnist cannot run 'mlp sgd': ") and ended.stderr.count("\n") == 1


def test_figures_are_written_before_they_are_printed(tmp_path, monkeypatch, capsys):
    def fail(report):
        raise BrokenPipeError("no reader")

    script = module("bench")
    result = {"contenders": {"tinymnist": {"ms": [1.0], "mb": 2.0, "threads": 1}}, "product GFLOP/s": None}
    monkeypatch.setattr(script, "measure", lambda *_: result)
    monkeypatch.setattr(script, "print_table", fail)
    options = ["--data", str(DIGITS), "--only", "mlp", "--json", str(tmp_path / "bench.json")]
    assert refused(capsys, script.main(options), "no reader")
    assert json.loads((tmp_path / "bench.json").read_text()) == {"mlp sgd": result}
