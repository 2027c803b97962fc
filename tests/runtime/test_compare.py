"""compare.py measures what training gives, prints it next to what was published, and keeps what is finished."""

import json
import os

import numpy as np
import pytest
from commands import command, module, refused

import tinymnist as tm
from tinymnist.experiments import recipes

script, compare = module("compare"), command("compare")
QUICK = ("--data", "digits", "--limit", 300, "--epochs", 2, "--save")


def read_results(directory):
    assert (directory / "compare.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((directory / "compare.json").read_text())["results"]


def test_accuracies_are_those_of_the_model_after_each_epoch(tmp_path):
    assert compare(*QUICK, tmp_path, "--rules", "momentum:lr=0.05,momentum=0.8", "--seeds", 2) == 0
    (result,) = read_results(tmp_path)
    assert result["hyper"] == {"lr": 0.05, "momentum": 0.8} and [run["seed"] for run in result["runs"]] == [0, 1]
    data = tm.load("digits")
    sets = {"training": tm.Split(data.train.images[:300], data.train.labels[:300]), "test": data.test}
    for seed in (0, 1):
        for epochs in (1, 2):
            model, rule = tm.softmax_regression(), tm.Optimizer("momentum", lr=0.05, momentum=0.8)
            tm.fit(model, rule, data, epochs=epochs, batch_size=64, seed=seed, limit=300)
            for name, (images, labels) in sets.items():
                expected = 100 * (tm.predict(model, images).argmax(1) == labels).mean()
                assert result["runs"][seed][name][epochs - 1] == pytest.approx(expected, abs=1e-3)


def test_published_accuracies_are_next_to_measured_ones(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recipes, "MNIST", tm.load("digits").fingerprint)
    assert compare("--data", "digits", "--epochs", 6, "--save", tmp_path, "--rules", "sgd", "sgd:lr=0.2") == 0
    lines, run = capsys.readouterr().out.splitlines(), read_results(tmp_path)[0]["runs"][0]
    first = lines.index("sgd (lr 0.1)") + 1
    assert lines[first].split() == ["1", "80.18", f"{run['training'][0]:.2f}", "81.41", f"{run['test'][0]:.2f}"]
    assert lines[first + 4].split()[:2] == ["5", "87.42"]
    assert lines[first + 5].split()[:2] == ["6", "–"]  # only five epochs were published
    assert lines[lines.index("sgd (lr 0.2)") + 1].split()[:2] == ["1", "–"]
    assert compare(*QUICK, tmp_path, "--rules", "sgd") == 0
    assert "80.18" not in capsys.readouterr().out  # nothing was published about a part of the data


@pytest.mark.skipif(not os.environ.get("TINYMNIST_DATA"), reason="$TINYMNIST_DATA names no directory with MNIST")
def test_accuracies_were_published_only_for_mnist():
    for where, expected in ((None, recipes.FIVE_RULES["sgd"]), ("digits", [])):
        assert recipes.published_accuracies("softmax", "sgd", {"lr": 0.1}, tm.load(where)) == expected


def test_all_five_rules_train_any_model(tmp_path):
    assert compare(*QUICK, tmp_path, "--model", "mlp", "--activation", "tanh", "--batch-size", 50) == 0
    found = read_results(tmp_path)
    assert [result["rule"] for result in found] == list(tm.optim.RULES)
    assert all(np.shape(result["runs"][0][name]) == (2,) for result in found for name in ("training", "test"))


def test_table_of_means_and_standard_deviations_fits_80_columns(capsys):
    runs = [{"training": [value] * 10, "test": [80] * 10} for value in (0, 100.0, 50)]
    label = str(tm.Optimizer("rmsprop", lr=0.0001, rho=0.9999, eps=1e-10))
    script.print_table([{"label": label, "published": [(100, 99.5)] * 10, "runs": runs}])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13 and max(map(len, lines)) <= 80
    assert " ".join(lines[-1].split()) == "10 100.00 50.00 ± 50.00 99.50 80.00 ± 0.00"


def test_rule_is_its_name_and_hyper_parameters():
    for text, hyper in {
        "adagrad": {"lr": 0.9, "eps": 1e-7},
        "adagrad:eps=1e-3": {"lr": 0.9, "eps": 1e-3},
        "momentum:lr=1, momentum=0.5": {"lr": 1, "momentum": 0.5},
        "adadelta:rho=0.9": {"rho": 0.9, "eps": 1e-5},
    }.items():
        rule = script.parse_rule(text, "softmax")
        assert (rule.name, rule.hyper) == (text.split(":")[0], hyper)


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--rules", "sgd", "adam"], "there is no update rule 'adam'; the rules are sgd, momentum, adagrad,"),
        (["--rules", ":lr=1"], "there is no update rule ''"),
        (["--rules", "sgd:momentum=0.9"], "sgd has no hyper-parameter 'momentum'"),
        (["--rules", "sgd:lr"], "'sgd:lr': 'lr' is not NAME=NUMBER"),
        (["--rules", "sgd:lr=fast"], "'lr=fast' is not NAME=NUMBER"),
        (["--rules", "sgd:lr=-1"], "lr of sgd must be"),
        (["--seeds", 0], "--seeds and --epochs must be at least 1, not 0 and 5"),
        (["--epochs", 0], "--seeds and --epochs must be at least 1, not 1 and 0"),
        (["--batch-size", 0], "batch size must be"),
        (["--limit", 0], "limit must be"),
        (["--activation", "tanh"], "softmax has no --activation"),
        (["--device", "tpu"], "there is no device 'tpu'"),
        (["--data", "/nowhere"], "/nowhere"),
        (["--save", __file__], f"{__file__}: "),
    ],
)
def test_wrong_option_is_refused_with_one_sentence(words, sentence, tmp_path, capsys):
    assert refused(capsys, compare("--data", "digits", "--save", tmp_path, *words), sentence)


@pytest.mark.parametrize("others", [[], ["adagrad", "sgd:lr=0.05"]])
def test_rule_that_diverges_does_not_cost_the_results_of_others(others, tmp_path, capsys):
    assert compare(*QUICK, tmp_path, "--model", "mlp", "--rules", "sgd:lr=1e30", *others) == 1
    assert capsys.readouterr().err.startswith("sgd (lr 1e+30): the loss of epoch 1")
    labels = [result["label"] for result in read_results(tmp_path)] if others else os.listdir(tmp_path)
    assert labels == (["adagrad (lr 0.02, eps 1e-07)", "sgd (lr 0.05)"] if others else [])


def test_finished_rules_are_kept_after_ctrl_c(tmp_path, capsys, monkeypatch):
    train = tm.Run.train

    def stop_at_adagrad(run, **options):
        if run.optimizer.name == "adagrad":
            raise KeyboardInterrupt
        return train(run, **options)

    monkeypatch.setattr(tm.Run, "train", stop_at_adagrad)
    assert compare(*QUICK, tmp_path, "--rules", "sgd", "adagrad") == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C; compare.json has the rules that were finished\n"
    assert [r["rule"] for r in json.loads((tmp_path / "compare.json").read_text())["results"]] == ["sgd"]
