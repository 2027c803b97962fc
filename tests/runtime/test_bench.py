"""The benchmark runs every contender that is installed, and reports the others in one sentence."""

import json
import re
import sys
from importlib.util import find_spec
from unittest.mock import Mock

import pytest
from commands import DIGITS, command, module, refused

from tinymnist.runtime.step import Step

script, bench = module("bench"), command("bench")


def test_every_installed_contender_has_times_and_a_peak_of_memory(tmp_path, capsys):
    torch, file, picture = find_spec("torch"), tmp_path / "bench.json", tmp_path / "bench.png"
    words = f"--data {DIGITS} --only mlp --threads 1 --rounds 2 --seconds 0.02 --json {file} --plot {picture}"
    assert bench(words, "" if torch else "--torch-python true") == 0
    out, err = capsys.readouterr()
    missing = ["left out: PyTorch cannot run 'mlp sgd': its process ended without an answer"]
    assert err.splitlines() == ([] if torch else missing)
    report = json.loads(file.read_text())
    *_, products = report["machine"]
    assert re.fullmatch(r"products, threads 1: dot \d+, FullyConnected \d+ GFLOP/s; OpenBLAS kernel \w+", products)
    contenders = report["mlp sgd"]["contenders"]
    assert set(script.CONTENDERS) - set(contenders) == (set() if torch else {"PyTorch"})
    for result in contenders.values():
        assert len(result["ms"]) == 2 and min(result["ms"]) > 0 and result["mb"] > 50
        assert (result["threads"], result["devices"]) == (1, 1)
    assert 0 < contenders["tinymnist"]["share of product rate"] < 1.5
    assert "mlp sgd" in out and max(map(len, out.splitlines())) <= 100
    assert picture.stat().st_size > 1000
    legend = script.draw_chart({"mlp sgd": report["mlp sgd"]}).axes[0].get_legend()
    assert {text.get_text() for text in legend.get_texts()} == set(contenders)


def test_each_turn_begins_with_a_repetition_that_is_not_timed(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(
        script, "prepare_tinymnist", lambda *_: (lambda: calls.append("run"), lambda: calls.append("wait"))
    )
    monkeypatch.setattr(sys, "stdin", ["2\n"])
    script.answer_questions("tinymnist", "mlp sgd", None, None, 1)
    assert calls == ["run", "wait", "run", "run", "wait"] and json.loads(capsys.readouterr().out)[0] < 1


@pytest.mark.parametrize("devices", [1, 3])
def test_devices_divide_the_batch(devices, monkeypatch, tmp_path):
    losses = []
    compute = Step.compute_gradient
    monkeypatch.setattr(Step, "compute_gradient", lambda *given: losses.append(compute(*given)))
    run, wait = script.prepare_tinymnist("tinymnist", "mlp sgd", DIGITS, tmp_path / "peer.npz", devices)
    for _ in range(30):
        run()
        wait()
    assert sum(len(result.labels) for result in losses[:devices]) == 100 and len(losses) == 30 * devices
    assert max(result.loss.asscalar() for result in losses[-devices:]) < 1.5 < losses[0].loss.asscalar()


def test_the_table_names_devices_and_threads(capsys):
    found = {"ms": [1.0], "mb": 60, "threads": 1, "devices": 2}
    script.print_table(
        {"mlp sgd": {"contenders": {"tinymnist": found, "Gluon": {**found, "devices": 1, "threads": 2}}}}
    )
    ours, gluon = capsys.readouterr().out.splitlines()[-2:]
    assert "  2 × 1  " in ours and "        2  " in gluon and "×" not in gluon


def test_the_products_of_a_step_are_counted():
    _, size = script.measure_products("lenet tanh sgd")
    layers = [25 * 20 * 576, 500 * 50 * 64, 800 * 500, 500 * 10]
    assert size * 1e9 == pytest.approx(2 * 100 * (3 * sum(layers) - layers[0]))


def test_four_good_files_are_needed_except_for_pixels(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "print_pixel_costs", lambda rounds: 0)
    assert bench("--pixels --data", tmp_path) == 0
    for name in script.FILES:
        assert refused(capsys, bench("--data", tmp_path), f"{tmp_path}: there is no {name}")
        (tmp_path / name).write_bytes(b"")
    assert refused(capsys, bench("--only mlp --data", tmp_path), "tinymnist cannot run 'mlp sgd': ", "DataError: ")


def test_figures_are_written_before_they_are_printed(tmp_path, monkeypatch, capsys):
    result = {"contenders": {"tinymnist": {"ms": [1.0], "mb": 2.0, "threads": 1}}, "product GFLOP/s": None}
    monkeypatch.setattr(script, "measure", lambda *_: result)
    monkeypatch.setattr(script, "describe_machine", lambda threads: ["a computer"])
    monkeypatch.setattr(script, "print_table", Mock(side_effect=BrokenPipeError("no reader")))
    assert refused(capsys, bench("--data", DIGITS, "--only mlp --json", tmp_path / "bench.json"), "no reader")
    assert json.loads((tmp_path / "bench.json").read_text()) == {"machine": ["a computer"], "mlp sgd": result}
