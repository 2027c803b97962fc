"""python scripts/train.py: what it prints, how it ends, and which sentence it prints for bad input."""

import io
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, SCRIPT, finish, module, refused, start
from runs import digits

import tinymnist as tm
from tinymnist.experiments import recipes
from tinymnist.runtime import checkpoint, files, progress

script = module("train")
QUICK = ["--data", "digits", "--limit", "200", "--epochs", "2"]


def train(*words):
    return script.main([str(word) for word in words])


@pytest.fixture(autouse=True)
def new_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINYMNIST_DATA", raising=False)


@pytest.fixture
def last_line(capsys):
    """The last line of a run that is saved in the directory run"""
    assert train(*QUICK, "--save", "run") == 0
    return capsys.readouterr().out.splitlines()[-1]


def get_figures(text):
    """The printed lines without everything that depends on the clock"""
    lines = [line for line in text.splitlines() if "images/s" not in line]
    return [line[:56] if re.match(r" +\d+ ", line) else line.split("; saved in")[0] for line in lines]


# What it prints


def test_help_describes_every_option(capsys):
    assert train("--help") == 0
    text = capsys.readouterr().out
    options = """--model --opt --activation --hidden --filters --kernels --rate --recipe --list-recipes --epochs
        --batch-size --lr --momentum --rho --eps --lr-decay --seed --device --kvstore --timeout --compile --no-compile
        --data --limit --hold-out --normalize --no-normalize --augment --no-augment --save --save-every --resume
        --log-interval --show --quiet"""
    for option in options.split():
        assert re.search(rf"^  (-h, )?.*{option}\b", text, re.M), option
    assert text.count("default") >= 12 and all(model in text for model in tm.models.MODELS)


def test_without_options_softmax_regression_trains(capsys):
    """20 epochs of the embedded digits by sgd, saved in a new directory."""
    assert train("--data", "digits") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "softmax_regression (7,850 parameters) by sgd (lr 0.1), seed 0"
    assert re.fullmatch(r"the embedded UCI digits: 1,497 training and 300 test images of 28x28 from [^;]*", lines[1])
    assert len({len(line) for line in lines[2:23]}) == 1  # aligned
    (directory,) = Path("runs").iterdir()
    assert lines[23].endswith(f" after 20 epochs; saved in {directory} (curves.png shows the curves)")
    assert float(lines[23].split()[2]) > 0.85 and err == ""
    assert sorted(p.name for p in directory.iterdir()) == ["curves.png", "epoch-0019", "epoch-0020", "history.json"]
    assert f"{json.loads((directory / 'history.json').read_text())[-1]['loss']:.4f}" in lines[22]


def test_the_first_lines_name_the_recipe_and_the_limit(capsys):
    assert train("--recipe", "mlp", "--data", "digits", "--limit", 1200, "--epochs", 1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mlp (109,386 parameters) by sgd (lr 0.1), seed 0, recipe mlp"
    assert lines[1].endswith("; trains on the first 1,200 only") and " after 1 epoch; saved in " in lines[-1]


def test_the_same_seed_prints_the_same_figures(capsys):
    def print_figures(*words):
        assert train(*QUICK, "--model", "dropout-cnn", "--log-interval", 1, *words) == 0
        return get_figures(capsys.readouterr().out)

    first = print_figures()
    assert first == print_figures("--seed", 0) == print_figures("--save", "another directory")
    assert first[2:] != print_figures("--seed", 1)[2:]


def test_runs_of_the_same_second_have_a_directory_each(capsys, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "20261125-120000")
    for end in ("", "-2", "-3"):
        assert train(*QUICK, "--quiet") == 0
        assert f"saved in runs/softmax_regression-sgd-20261125-120000{end} " in capsys.readouterr().out
    with ThreadPoolExecutor() as pool:
        directories = list(pool.map(lambda _: files.new_run_directory("runs/name"), range(20)))
    assert len(set(directories)) == 20 and all(path.is_dir() for path in directories)
    with pytest.raises(tm.DataError, match="File exists"):
        files.new_run_directory(Path(__file__) / "name")


def test_the_learning_rate_stops_falling_at_the_smallest_float32():
    assert train(*QUICK, "--lr", "1e-30", "--lr-decay", "1e-10", "--epochs", 4, "--save", "run") == 0
    rates = [epoch["lr"] for epoch in checkpoint.newest("run")[0]["history"]]
    assert rates == pytest.approx([1e-30, *[float(np.finfo(np.float32).tiny)] * 3])


def test_fit_prints_the_same_table(capsys):
    run = tm.fit(tm.softmax_regression(), tm.Optimizer("sgd", lr=0.1), digits(), epochs=2, progress=True)
    lines = [progress.epoch_line(epoch, 330) for epoch in run.history]
    assert capsys.readouterr() == ("\n".join([progress.HEADER, *lines, ""]), "")


@pytest.mark.parametrize("columns", [40, 80])
def test_the_bar_shows_epoch_loss_speed_and_time(columns, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    for name, value in {"dynamic_ncols": False, "ncols": columns - 1, "mininterval": 0}.items():  # 0: every batch
        monkeypatch.setitem(progress.BAR, name, value)
    assert train(*QUICK, "--epochs", 10, "--log-interval", 1) == 0
    bars = [line for line in sys.stderr.getvalue().split("\r") if "loss" in line]
    assert re.match(r"epoch 10/10 loss \d\.\d{3} .*img/s \d\d:\d\d", bars[-1])
    assert max(map(len, bars)) < columns


# Resuming


def test_resume_restores_everything(capsys):
    """Model, rule, data, held-out images and all settings: the figures are those of a run that was not stopped."""
    data = Path(tm.__file__).parent / "datasets" / "digits"
    what = ["--data", data, "--hold-out", 200, "--limit", 330, "--seed", 3, "--rate", 0.3, "--hidden", 20]
    how = ["--model", "dropout-cnn", "--opt", "rmsprop", "--lr", 0.002, "--rho", 0.8, "--eps", 1e-6]
    more = ["--activation", "tanh", "--batch-size", 10, "--lr-decay", 0.7, "--normalize", "--augment"]
    assert train(*what, *how, *more, "--epochs", 3) == 0
    expected = get_figures(capsys.readouterr().out)
    assert train(*what, *how, *more, "--epochs", 1, "--save", "a b", "--save-every", 16) == 0
    first = get_figures(capsys.readouterr().out)
    assert train("--resume", "a b", "--epochs", 3) == 0
    second = get_figures(capsys.readouterr().out)
    assert first[:3] + second[2:] == expected and first[:2] == second[:2]


@pytest.mark.parametrize("damage", [False, True])
def test_a_complete_run_is_reported_again_even_if_its_last_checkpoint_is_damaged(damage, last_line, capsys):
    sentence = "run has ended; give --epochs a number above 2 to continue it"
    if damage:
        Path("run/epoch-0002/model.params").write_bytes(b"")
        sentence = "run/epoch-0002/model.params: is damaged"
    assert train("--resume", "run") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == last_line and err.startswith(sentence) and err.count("\n") == 1


def test_what_a_saved_run_does_not_accept(last_line, capsys):
    own = "--model mlp, --opt sgd, --lr 1, --recipe mlp, --save x, --hidden 5, --filters 5 5, --rate 0"
    cases = {words: f"{words.split()[0]} cannot be given with --resume" for words in own.split(", ")}
    cases["--seed 1"] = "run began with seed 0 and cannot continue with 1"
    cases["--limit 7"] = "run began with limit 200 and cannot continue with 7"
    cases["--normalize"] = "run began with normalize False and cannot continue with True"
    cases["--batch-size 7"] = "run began with batch size 64 and cannot continue with 7"
    cases["--epochs 1"] = "run is in epoch 3 already and cannot end after 1"
    cases["--hold-out 5"] = "run began with other data (the embedded UCI digits"
    cases["--data nowhere"] = "nowhere: "
    cases["--device gpu:77"] = "gpu(77)"
    for words, sentence in cases.items():
        assert refused(capsys, train("--resume", "run", *words.split()), sentence)
    sentence = "run: holds another run; resume that one, or save into another directory"
    assert refused(capsys, train(*QUICK, "--save", "run"), sentence)


# Signals


def send_signal(monkeypatch, owner, name, number, times=1):
    """The process receives a signal when it calls owner.name for the `times`-th time."""
    original, count = getattr(owner, name), itertools.count(1)

    def call(*args, **kwargs):
        if next(count) == times:
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)


def command_in(text):
    """The command that the last line says to type"""
    return text.splitlines()[-1].partition("; continue with: ")[2]


NUMBERS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
RUN = ["--model", "dropout-cnn", "--batch-size", 10, "--log-interval", 1, "--data", "digits", "--limit", 330]


@NUMBERS
@pytest.mark.parametrize(
    "owner, name, times, where",
    [
        (checkpoint, "save_checkpoint", 1, "after 0 epochs"),
        (tm.Run, "train_epoch", 1, "after 0 epochs"),
        (tm.runtime.run.LossReader, "read", 2, "in epoch 1 after 16 batches"),
        (tm.runtime.run, "evaluate_shares", 1, "after 1 epoch"),
        (checkpoint, "save_checkpoint", 2, "after 1 epoch"),
        (tm.Run, "train_epoch", 2, "after 1 epoch"),
        (tm.Run, "finish_epoch", 2, "after 2 epochs"),  # it was about to end
    ],
)
def test_a_stopped_run_resumes_as_if_it_had_not_stopped(owner, name, times, where, number, monkeypatch, capsys):
    assert train(*RUN, "--epochs", 2) == 0
    expected = get_figures(capsys.readouterr().out)[-1]
    with monkeypatch.context() as patch:
        send_signal(patch, owner, name, number, times)
        assert train(*RUN, "--epochs", 2, "--save", "a run") == 128 + number
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith(f"stopped {where}; ") and not err
    assert shlex.split(command_in(out)) == [sys.executable, SCRIPT, "--resume", "a run"]
    assert train("--resume", "a run") == 0
    assert get_figures(capsys.readouterr().out)[-1] == expected
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


@NUMBERS
@pytest.mark.parametrize(
    "owner, name, epochs",
    [(recipes, "load", 0), (recipes, "Run", 0), (script.cli.Parser, "parse_args", 0), (script, "report", 2)],
)
def test_a_signal_before_or_after_the_training_ends_the_process(owner, name, epochs, number, monkeypatch, capsys):
    send_signal(monkeypatch, owner, name, number)
    assert train(*QUICK, "--save", "run") == 128 + number
    assert capsys.readouterr().err == "stopped while nothing was being trained\n"
    assert [path.name for path in Path().glob("run/epoch-*2")] == ["epoch-0002"] * (epochs == 2)


def test_a_stopped_recipe_of_two_parts_continues_to_the_end_of_both(monkeypatch, capsys):
    send_signal(monkeypatch, tm.Run, "finish_epoch", signal.SIGINT, 3)
    assert train("--recipe", "dropout", "--data", "digits", "--limit", 200, "--save", "run") == 130
    out = capsys.readouterr().out
    assert "stopped after 3 epochs; " in out and command_in(out).endswith(" --resume run --epochs 8")


def test_an_ignored_signal_stays_ignored(monkeypatch):
    """nohup and the & of a shell ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        send_signal(monkeypatch, tm.Run, "finish_epoch", signal.SIGINT)
        assert train(*QUICK) == 0
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@NUMBERS
def test_a_stopped_process_prints_a_command_that_can_be_pasted(number):
    run = start("--data", "digits", "--model", "lenet", "--epochs", 1000, "--save", "run")
    while not run.stdout.readline().startswith("    1 "):
        assert run.poll() is None
    run.send_signal(number)
    status, out, err = finish(run)
    state, _, damaged = checkpoint.newest("run")
    assert (status, err, damaged) == (128 + number, "", [])
    pasted = f"{command_in(out)} --epochs {state['epoch'] + 1} --quiet"
    assert "test accuracy" in subprocess.run(pasted, shell=True, check=True, capture_output=True, text=True).stdout


def test_the_second_ctrl_c_ends_a_process_that_hangs():
    code = f"""
import runpy, sys, time
import tinymnist as tm
tm.runtime.run.LossReader.read = lambda *_: time.sleep(1000)
sys.path.append({str(ROOT / "scripts")!r})
runpy.run_path({SCRIPT!r}, run_name="__main__")
"""
    run = start("--data", "digits", "--save", "run", "--log-interval", 1, "--epochs", 1, python=["-c", code])
    while not run.stdout.readline().startswith("epoch"):
        assert run.poll() is None
    for _ in range(2):
        time.sleep(0.5)
        assert run.poll() is None
        run.send_signal(signal.SIGINT)
    assert finish(run) == (-signal.SIGINT, "", "") and checkpoint.newest("run")[0]["epoch"] == 0


# Bad input and failures

BAD_INPUT = """
--lr -1                        lr of sgd must be a number from
--lr fast                      argument --lr: invalid float value: 'fast'
--opt rmsprop --rho 1          rho of rmsprop must be
--opt adadelta --lr 1          adadelta has no --lr; use --opt sgd or momentum or adagrad or rmsprop
--opt sgd --momentum 0.9       sgd has no --momentum; use --opt momentum
--opt adam                     argument --opt: invalid choice: 'adam'
--model resnet                 argument --model: invalid choice: 'resnet'
--activation relu              softmax has no --activation; use --model mlp or lenet or dropout-cnn
--model mlp --kernels 5 5      mlp has no --kernels; use --model lenet or dropout-cnn
--model lenet --filters 5      argument --filters: expected 2 arguments
--model lenet --filters 5 0    filters must be whole numbers of at least 1, not 5 0
--model lenet --kernels 29 5   a window of 29 is larger than the 28 pixels
--model lenet --hidden 5 6     lenet has one hidden layer, not 2; mlp can have several
--model lenet --rate 0.5       lenet has no --rate; use --model dropout-cnn
--model dropout-cnn --rate 1   dropout rate
--recipe cake                  there is no recipe 'cake'; the recipes are softmax-sgd, softmax-momentum
--epochs -1                    epochs must be a whole number of at least 0, not -1
--epochs                       argument --epochs: expected one argument
--limit 0                      limit must be a whole number of at least 1, not 0
--hold-out 1497                of 1,497 training images 1 to all but one can be held out, not 1,497
--save-every -1                save every must be a whole number of at least 0, not -1
--timeout 0                    timeout must be
--data nowhere                 nowhere:
--data .                       train-images-idx3-ubyte
--save LICENSE                 LICENSE:
--save /proc/run               /proc/run:
--resume nowhere               nowhere:
--resume LICENSE               LICENSE:
lenet                          unrecognized arguments: lenet
"""


@pytest.mark.parametrize("words, sentence", [(line[:31], line[31:]) for line in BAD_INPUT.strip("\n").splitlines()])
def test_bad_input(words, sentence, capsys):
    Path("LICENSE").write_text("a file")
    assert refused(capsys, train(*QUICK, *words.split()), sentence)
    assert not list(Path().glob("runs/*/epoch-*"))  # nothing was trained


def make_data(height, width, *, highest=255, classes=10, extra=0):
    """Options for random images, with as many labels and `extra` more"""
    directory = Path(f"{height}x{width}-{highest}-{classes}-{extra}")
    directory.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for prefix in ("train", "t10k"):
        images, labels = rng.integers(0, highest + 1, (30, height, width)), rng.integers(0, classes, 30 + extra)
        tm.idx.write(directory / f"{prefix}-images-idx3-ubyte", images.astype("u1"))
        tm.idx.write(directory / f"{prefix}-labels-idx1-ubyte", labels.astype("u1"))
    return ["--data", directory, "--epochs", 1]


def test_images_may_have_other_sizes():
    for size, model in {(1, 1): "softmax", (3, 50): "mlp", (16, 16): "lenet", (17, 30): "lenet"}.items():
        assert train(*make_data(*size), "--model", model) == 0


def test_data_errors_are_sentences(capsys):
    assert refused(capsys, train(*make_data(28, 28, extra=1)), "train-labels-idx1-ubyte: ", "30 images", "(31,)")
    assert refused(capsys, train(*make_data(28, 28, classes=40)), "labels are whole numbers from 0 to 9")
    assert refused(capsys, train(*make_data(28, 28, highest=0), "--normalize"), "all pixels are equal")
    for size, model in itertools.product([(4, 4), (28, 4), (6, 6), (15, 13)], ["lenet", "dropout-cnn"]):
        assert refused(capsys, train(*make_data(*size), "--model", model), "a window of ", "pixels of the padded image")


def test_a_diverging_run_ends_with_status_1(capsys):
    assert train(*QUICK, "--model", "mlp", "--lr", "1e20", "--save", "run") == 1
    sentence = r"the loss of epoch 1, batch 2 is (nan|inf), the learning rate 1e\+20; try a smaller one\n"
    assert re.fullmatch(sentence, capsys.readouterr().err)
    assert checkpoint.newest("run")[0]["epoch"] == 0


def test_a_run_succeeds_without_its_figure(capsys, monkeypatch):
    Path("run/curves.png").mkdir(parents=True)
    assert train(*QUICK, "--save", "run") == 0
    out, err = capsys.readouterr()
    assert err == "the curves cannot be drawn: run/curves.png: cannot be written: Is a directory\n"
    assert out.endswith("epochs; saved in run\n")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert train("--resume", "run", "--epochs", 3, "--show") == 0
    err = capsys.readouterr().err
    assert err.startswith("the curves cannot be drawn: ") and err.count("\n") == 1
