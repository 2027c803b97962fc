"""Rules side by side: what is compared, how it is measured, what is said about it."""

import json
import os

import numpy as np
import pytest
from commands import command, module, refused

import tinymnist as tm
from tinymnist.experiments import recipes

compare = command("compare")
script = module("compare")


def compared(tmp_path, *words):
    status = compare("--data", "digits", "--limit", 300, "--epochs", 2, "--save", tmp_path / "out", *words)
    assert status == 0
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((tmp_path / "out" / "compare.json").read_text())


def test_accuracies_are_those_of_the_model_after_each_epoch(tmp_path):
    found = compared(tmp_path, "--rules", "momentum:lr=0.05,momentum=0.8", "--seeds", 2)["results"]
    assert [r["hyper"] for r in found] == [{"lr": 0.05, "momentum": 0.8}] and not found[0]["published"]
    data = tm.load("digits")
    for seed, run in enumerate(found[0]["runs"]):
        assert run["seed"] == seed
        for epochs in (1, 2):
            rule = tm.Optimizer("momentum", lr=0.05, momentum=0.8)
            model = tm.softmax_regression()
            tm.fit(model, rule, data, epochs=epochs, batch_size=64, seed=seed, limit=300)
            for name, (images, labels) in {"training": (x[:300] for x in data.train), "test": data.test}.items():
                expected = 100 * (tm.predict(model, images).argmax(1) == labels).mean()
                assert run[name][epochs - 1] == pytest.approx(expected, abs=1e-3)


def test_published_beside_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recipes, "MNIST", tm.load("digits").fingerprint)
    words = ["--data", "digits", "--epochs", 6, "--save", tmp_path / "out", "--rules", "sgd", "sgd:lr=0.2"]
    assert compare(*words) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    result = json.loads((tmp_path / "out" / "compare.json").read_text())["results"]
    run = result[0]["runs"][0]
    first = next(row for row in rows if row[:3] == ["sgd,", "lr", "0.1"])
    assert first[3:] == ["1", "80.18", f"{run['training'][0]:.2f}", "81.41", f"{run['test'][0]:.2f}"]
    at = rows.index(first)
    assert rows[at + 4][:2] == ["5", "87.42"] and rows[at + 5][:2] == ["6", "–"]  # five epochs were published
    assert [row[4] for row in rows if row[:3] == ["sgd,", "lr", "0.2"]] == ["–"]
    compared(tmp_path, "--rules", "sgd")  # on a part of the data: no such thing was published
    assert "80.18" not in capsys.readouterr().out


@pytest.mark.skipif(not os.environ.get("TINYMNIST_DATA"), reason="$TINYMNIST_DATA names no directory with MNIST")
def test_published_was_what_mnist_gave():
    rule = ("softmax", "sgd", {"lr": 0.1})
    assert recipes.published(*rule, tm.load()) == recipes.FIVE_RULES["sgd"]
    assert recipes.published(*rule, tm.load("digits")) == []


def test_all_five_rules_on_any_model(tmp_path):
    found = compared(tmp_path, "--model", "mlp", "--batch-size", 50)
    assert [r["rule"] for r in found["results"]] == list(tm.optim.RULES)
    assert all(np.shape(r["runs"][0][w]) == (2,) for r in found["results"] for w in ("training", "test"))


@pytest.mark.parametrize(
    "values, said", [([81.234], "81.23"), ([80, 82], "81.00 ± 1.41"), ([80, 80, 80], "80.00 ± 0.00")]
)
def test_mean_and_spread(values, said):
    assert script.spread(np.array(values, float)) == said


@pytest.mark.parametrize(
    "text, hyper",
    [
        ("adagrad", {"lr": 0.9, "eps": 1e-7}),
        ("adagrad:eps=1e-3", {"lr": 0.9, "eps": 1e-3}),
        ("momentum:lr=1, momentum=0.5", {"lr": 1, "momentum": 0.5}),
        ("adadelta:rho=0.9", {"rho": 0.9, "eps": 1e-5}),
    ],
)
def test_rules_by_name(text, hyper):
    assert script.named(text, "softmax") == (text.split(":")[0], hyper)


@pytest.mark.parametrize(
    "words, named",
    [
        (["--rules", "sgd", "adam"], ["'adam'", "adagrad"]),
        (["--rules", "sgd:momentum=0.9"], ["sgd has no hyper-parameter 'momentum'"]),
        (["--rules", "sgd:lr"], ["'sgd:lr'", "NAME=NUMBER"]),
        (["--rules", "sgd:lr=fast"], ["'lr=fast'", "NAME=NUMBER"]),
        (["--rules", "sgd:lr=-1"], ["lr of sgd must be positive, finite and at least 1.2e-38, not -1"]),
        (["--rules", ":lr=1"], ["there is no update rule ''"]),
        (["--seeds", 0], ["--seeds"]),
        (["--epochs", 0], ["--epochs"]),
        (["--batch-size", 0], ["--batch-size"]),
        (["--activation", "tanh"], ["softmax regression has no activation"]),
        (["--limit", 0], ["limit must be a whole number from 1 on"]),
        (["--device", "tpu"], ["there is no device 'tpu'"]),
        (["--data", "/nowhere"], ["/nowhere"]),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_what_cannot_be_compared(words, named, tmp_path, capsys):
    assert refused(capsys, compare("--data", "digits", "--save", tmp_path, *words), *named)


@pytest.mark.parametrize("others", [[], ["adagrad", "sgd:lr=0.05"]])
def test_a_rule_that_diverges_does_not_cost_the_others_their_results(others, tmp_path, capsys):
    words = ["--data", "digits", "--model", "mlp", "--epochs", 1, "--save", tmp_path, "--rules", "sgd:lr=1e30"]
    assert compare(*words, *others) == 1
    assert capsys.readouterr().err.startswith("sgd, lr 1e+30: the loss of epoch 1")
    assert (tmp_path / "compare.json").exists() == bool(others)
    if others:
        found = json.loads((tmp_path / "compare.json").read_text())["results"]
        assert [r["label"] for r in found] == ["adagrad, lr 0.02", "sgd, lr 0.05"]


def test_what_was_finished_is_kept_when_it_is_stopped(tmp_path, capsys, monkeypatch):
    whole = script.measure

    def measure(args, rule, *rest):
        if rule == "adagrad":
            raise KeyboardInterrupt
        return whole(args, rule, *rest)

    monkeypatch.setattr(script, "measure", measure)
    words = ["--data", "digits", "--limit", "50", "--epochs", "1", "--save", str(tmp_path), "--rules", "sgd", "adagrad"]
    assert script.main(words) == 130
    assert "Traceback" not in capsys.readouterr().err
    assert [r["rule"] for r in json.loads((tmp_path / "compare.json").read_text())["results"]] == ["sgd"]


def test_a_file_where_the_directory_should_be(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    words = ["--data", "digits", "--limit", 50, "--epochs", 1, "--rules", "sgd", "--save", tmp_path / "out"]
    assert refused(capsys, compare(*words), "out")
