"""python scripts/train.py: what it prints, how it ends, and that what cannot be is refused in one sentence."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, module, refused
from runs import RULES, SMALL

import tinymnist as tm
from tinymnist import idx
from tinymnist.backend import mx
from tinymnist.runtime import checkpoint, files

script = module("train")
PATIENCE = 300  # seconds that a process is waited for, on a busy machine
QUICK = ["--data", "digits", "--limit", "200", "--epochs", "2"]


def train(*words):
    return script.main([str(word) for word in words])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Runs that nobody named a directory for go to runs/ where one stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINYMNIST_DATA", raising=False)


def figures(text):
    """What was printed, without what the clock has a say in"""
    lines = [line for line in text.splitlines() if "images/s" not in line]
    return [line[:56] if re.match(r" +\d+ ", line) else line.split("; saved in")[0] for line in lines]


def process(*words, script=(ROOT / "scripts" / "train.py",), **how):
    """The script as a user starts it, Ctrl-C at its default"""

    def default():
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    words = [sys.executable, "-u", *map(str, (*script, *words))]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "preexec_fn": default}
    return subprocess.Popen(words, **{**pipes, **how})


# What it does


def test_help(capsys):
    assert train("--help") == 0
    text = capsys.readouterr().out
    options = """--model --opt --activation --recipe --list-recipes --epochs --batch-size --lr --momentum --rho --eps
        --lr-decay --seed --device --kvstore --compile --no-compile --data --limit --hold-out --normalize --augment
        --save --save-every --resume --log-interval --show --quiet"""
    for option in options.split():
        assert re.search(rf"^  (-h, )?.*{option}\b", text, re.M), option
    assert text.count("default") >= 12 and all(model in text for model in tm.models.MODELS)


def test_recipes_are_listed(capsys):
    assert train("--list-recipes") == 0
    names = [line.split(" ")[0] for line in capsys.readouterr().out.splitlines()]
    assert [name for name in names if name] == list(script.RECIPES)


def test_all_defaults(capsys):
    """softmax regression by sgd, 20 epochs of the embedded digits, into a new directory"""
    assert train("--data", "digits") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "softmax_regression (7,850 parameters) by sgd (lr 0.1), seed 0"
    assert lines[1].startswith("the embedded UCI digits: 1,497 training and 300 test images of 28x28 from ")
    assert len({len(line) for line in lines[2:23]}) == 1  # aligned
    (directory,) = Path("runs").iterdir()
    assert lines[23].endswith(f" after 20 epochs; saved in {directory} (curves.png shows the curves)")
    assert float(lines[23].split()[2]) > 0.85 and err == ""
    assert sorted(p.name for p in directory.iterdir()) == ["curves.png", "epoch-0019", "epoch-0020", "history.json"]
    assert f"{json.loads((directory / 'history.json').read_text())[-1]['loss']:.4f}" in lines[22]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", SMALL)
def test_every_pair_trains(model, rule, capsys):
    assert train("--model", model, "--opt", rule, "--data", "digits", "--limit", 300, "--epochs", 1, "--quiet") == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and err == ""  # --quiet: the last line only


def test_the_same_seed_twice(capsys):
    def printed(*words):
        assert train(*QUICK, "--model", "dropout-cnn", "--log-interval", 1, *words) == 0
        return figures(capsys.readouterr().out)

    first = printed()
    assert first == printed("--seed", 0) == printed("--save", "somewhere else")
    assert first[2:] != printed("--seed", 1)[2:]


def test_runs_that_begin_in_one_second(capsys, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "20261125-120000")
    for end in ("", "-2", "-3"):
        assert train(*QUICK, "--quiet") == 0
        assert f"saved in runs/softmax_regression-sgd-20261125-120000{end} " in capsys.readouterr().out


def test_processes_that_begin_in_one_second_make_a_directory_each(tmp_path):
    with ThreadPoolExecutor() as pool:
        directories = list(pool.map(lambda _: files.fresh(tmp_path / "runs" / "name"), range(20)))
    assert len(set(directories)) == 20 and all(path.is_dir() for path in directories)
    with pytest.raises(tm.DataError, match="nothing can be saved there: File exists"):
        files.fresh(Path(__file__) / "name")


def test_a_learning_rate_falls_to_the_smallest_that_float32_holds(capsys):
    """and no farther: MXNet takes no smaller one"""
    decay = ["--lr", "1e-30", "--lr-decay", "1e-10", "--epochs", "4"]
    assert train(*QUICK, *decay, "--save", "run") == 0
    rates = [e["lr"] for e in checkpoint.newest("run")[0]["history"]]
    assert rates == pytest.approx([1e-30, np.finfo(np.float32).tiny, *[np.finfo(np.float32).tiny] * 2])


def test_a_name_that_looks_like_mathematics(capsys):
    shutil.copytree(Path(tm.__file__).parent / "datasets" / "digits", "m$^$")
    assert train("--data", "m$^$", *QUICK[2:], "--save", "run") == 0
    assert "curves.png shows the curves" in capsys.readouterr().out


def test_data_in_the_environment(capsys, monkeypatch):
    monkeypatch.setenv("TINYMNIST_DATA", str(Path(tm.__file__).parent / "datasets" / "digits"))
    assert train(*QUICK[2:]) == 0
    assert "IDX files: 1,497 training" in capsys.readouterr().out


# Going on


def test_everything_is_restored(capsys):
    """--resume alone: model, rule, data, images held out, all settings; the figures are those of the run at once"""
    what = ["--data", Path(tm.__file__).parent / "datasets" / "digits", "--hold-out", 200, "--limit", 330, "--seed", 3]
    how = ["--model", "dropout-cnn", "--opt", "rmsprop", "--lr", 0.002, "--rho", 0.8, "--eps", 1e-6]
    more = ["--activation", "tanh", "--batch-size", 10, "--lr-decay", 0.7, "--normalize", "--augment"]
    assert train(*what, *how, *more, "--epochs", 3) == 0
    at_once = figures(capsys.readouterr().out)
    assert train(*what, *how, *more, "--epochs", 1, "--save", "a b", "--save-every", 16) == 0
    first = figures(capsys.readouterr().out)
    assert train("--resume", "a b", "--epochs", 3) == 0
    second = figures(capsys.readouterr().out)
    assert first[:3] + second[2:] == at_once and first[:2] == second[:2]


def test_a_run_that_has_ended(capsys):
    assert train(*QUICK, "--save", "run") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert train("--resume", "run") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == last
    assert err == "run has ended: --epochs says how many it shall have instead of 2\n"


def test_a_damaged_checkpoint(capsys):
    assert train(*QUICK, "--save", "run") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    Path("run/epoch-0002/model.params").write_bytes(b"")
    assert train("--resume", "run") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == last
    assert err == "run/epoch-0002/model.params: is damaged: its checksum is another; the one before it is used\n"


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--model", "mlp"], "--model cannot be given with --resume"),
        (["--opt", "sgd"], "--opt cannot be given with --resume"),
        (["--lr", "1"], "--lr cannot be given with --resume"),
        (["--recipe", "mlp"], "--recipe cannot be given with --resume"),
        (["--save", "x"], "--save cannot be given with --resume"),
        (["--seed", "1"], "run was begun with seed 0 and cannot go on with 1"),
        (["--limit", "7"], "run was begun with limit 200 and cannot go on with 7"),
        (["--normalize"], "run was begun with normalize False and cannot go on with True"),
        (["--batch-size", "7"], "run was begun with batch size 64 and cannot go on with 7"),
        (["--epochs", "1"], "run is in epoch 3 already and cannot end after 1"),
        (["--hold-out", "5"], "run was begun on other data (the embedded UCI digits"),
        (["--data", "nowhere"], "nowhere: is no directory"),
        (["--device", "gpu:77"], "gpu(77) is not there"),
    ],
    ids=str,
)
def test_what_cannot_be_changed(words, sentence, capsys):
    assert train(*QUICK, "--save", "run") == 0
    capsys.readouterr()
    assert refused(capsys, train("--resume", "run", *words), sentence)


# Signals


def during(monkeypatch, owner, name, number, times=1):
    """The process gets a signal when it comes to owner.name, for the `times`-th time."""
    original, count = getattr(owner, name), itertools.count(1)

    def interrupted(*args, **kwargs):
        if next(count) == times:
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, interrupted)


NUMBERS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
RUN = ["--model", "dropout-cnn", "--batch-size", 10, "--log-interval", 1, "--data", "digits", "--limit", 330]


@NUMBERS
@pytest.mark.parametrize(
    "owner, name, times, where",
    [
        (checkpoint, "write", 1, "after 0 epochs"),  # saving, before anything
        (tm.Run, "run_batches", 1, "after 0 epochs"),
        (tm.Run, "read", 2, "in epoch 1 after 16 batches"),
        (tm.runtime.run, "tested", 1, "after 1 epochs"),
        (checkpoint, "write", 2, "after 1 epochs"),  # saving after the epoch
        (tm.Run, "run_batches", 2, "after 1 epochs"),
        (tm.Run, "finish_epoch", 2, "after 2 epochs"),  # it ends anyway
    ],
)
def test_a_signal(owner, name, times, where, number, monkeypatch, capsys):
    """The state is saved, one line says how to go on, and so going on ends as if nothing had been."""
    assert train(*RUN, "--epochs", 2) == 0
    at_once = figures(capsys.readouterr().out)[-1]
    with monkeypatch.context() as patch:
        during(patch, owner, name, number, times)
        assert train(*RUN, "--epochs", 2, "--save", "a run") == 128 + number
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"stopped {where}; go on with: python scripts/train.py --resume 'a run'" and not err
    assert train("--resume", "a run") == 0
    assert figures(capsys.readouterr().out)[-1] == at_once
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


@NUMBERS
@pytest.mark.parametrize("owner, name", [(tm, "load"), (tm, "Run"), (script.Parser, "parse_args")])
def test_a_signal_before_the_training(owner, name, number, monkeypatch, capsys):
    during(monkeypatch, owner, name, number)
    assert train(*QUICK) == 128 + number
    assert capsys.readouterr() == ("", "stopped while no run was under way\n")


def test_a_signal_after_the_training(monkeypatch, capsys):
    during(monkeypatch, script, "report", signal.SIGINT)
    assert train(*QUICK, "--save", "run") == 130
    assert checkpoint.newest("run")[0]["epoch"] == 2


def test_a_recipe_in_two_parts(monkeypatch, capsys):
    """Ctrl-C in the first part ends the second, too, and the line says how many epochs are left of both."""
    during(monkeypatch, tm.Run, "finish_epoch", signal.SIGINT, 3)
    assert train("--recipe", "dropout", "--data", "digits", "--limit", 200, "--save", "run") == 130
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "stopped after 3 epochs; go on with: python scripts/train.py --resume run --epochs 8"


def test_a_signal_that_is_ignored_stays_so(monkeypatch):
    """as nohup and a shell's & have it"""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        during(monkeypatch, tm.Run, "finish_epoch", signal.SIGINT)
        assert train(*QUICK) == 0
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_that_is_signalled(number, status):
    run = process("--data", "digits", "--model", "lenet", "--epochs", 1000, "--save", "run")
    while not run.stdout.readline().startswith("    1 "):
        assert run.poll() is None
    run.send_signal(number)
    out, err = run.communicate(timeout=PATIENCE)
    assert (run.returncode, err) == (status, "")
    assert re.search(r"\nstopped .*; go on with: python scripts/train.py --resume run\n$", "\n" + out)
    assert not checkpoint.newest("run")[2]


def test_the_second_ctrl_c():
    """ends the process at once, though a batch takes for ever"""
    words = ["train.py", "--data", "digits", "--save", "run", "--log-interval", "1", "--epochs", "1"]
    code = f"""
import runpy, sys, time
import tinymnist as tm
tm.Run.read = lambda *_: time.sleep(1000)
sys.argv = {words}
runpy.run_path({str(ROOT / "scripts" / "train.py")!r}, run_name="__main__")
"""
    run = process(script=["-c", code])
    while not run.stdout.readline().startswith("epoch"):
        assert run.poll() is None
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert run.poll() is None
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=PATIENCE)
    assert (run.returncode, out, err) == (-signal.SIGINT, "", "")
    assert checkpoint.newest("run")[0]["epoch"] == 0


def test_ctrl_c_while_it_is_imported():
    run = process("--data", "digits")
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=PATIENCE)
    assert run.returncode in (-signal.SIGINT, 130) and out == "" and "Traceback" not in err


# What is refused


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--lr", "-1"], "lr of sgd must be positive, finite and at least 1.2e-38, not -1.0"),
        (["--lr", "0"], "lr of sgd must be positive, finite and at least 1.2e-38, not 0.0"),
        (["--lr", "nan"], "lr of sgd must be positive, finite and at least 1.2e-38, not nan"),
        (["--lr", "inf"], "lr of sgd must be positive, finite and at least 1.2e-38, not inf"),
        (["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
        (["--opt", "rmsprop", "--rho", "1.5"], "rho of rmsprop must be from 0 to below 1, not 1.5"),
        (["--opt", "rmsprop", "--rho", "1"], "rho of rmsprop must be from 0 to below 1, not 1.0"),
        (["--opt", "adadelta", "--rho", "nan"], "rho of adadelta must be from 0 to below 1, not nan"),
        (["--opt", "momentum", "--momentum", "-0.1"], "momentum of momentum must be from 0 to below 1"),
        (["--opt", "adagrad", "--eps", "0"], "eps of adagrad must be positive, finite and at least 1.2e-38, not 0.0"),
        (["--opt", "adadelta", "--lr", "1"], "adadelta has no hyper-parameter 'lr'; it has rho, eps"),
        (["--momentum", "0.9"], "sgd has no hyper-parameter 'momentum'; it has lr"),
        (["--opt", "adam"], "argument --opt: invalid choice: 'adam'"),
        (["--model", "resnet"], "argument --model: invalid choice: 'resnet'"),
        (["--activation", "gelu"], "argument --activation: invalid choice: 'gelu'"),
        (["--activation", "relu"], "softmax regression has no activation"),
        (["--recipe", "cake"], "there is no recipe 'cake'; the recipes are softmax-sgd"),
        (["--epochs", "-1"], "epochs must be a whole number from 0 on, not -1"),
        (["--epochs", "1.5"], "argument --epochs: invalid int value: '1.5'"),
        (["--epochs"], "argument --epochs: expected one argument"),
        (["--batch-size", "0"], "batch size must be a whole number from 1 on, not 0"),
        (["--batch-size", "-3"], "batch size must be a whole number from 1 on, not -3"),
        (["--seed", "-1"], "seed must be a whole number from 0 on, not -1"),
        (["--limit", "0"], "limit must be a whole number from 1 on, not 0"),
        (["--hold-out", "0"], "of 1,497 training images 1 to all but one can be held out, not 0"),
        (["--hold-out", "1497"], "of 1,497 training images 1 to all but one can be held out, not 1,497"),
        (["--lr-decay", "0"], "lr decay must be above 0 and at most 1, not 0.0"),
        (["--lr-decay", "2"], "lr decay must be above 0 and at most 1, not 2.0"),
        (["--log-interval", "0"], "log interval must be a whole number from 1 on, not 0"),
        (["--save-every", "-1"], "save every must be a whole number from 0 on, not -1"),
        (["--device", "tpu"], "there is no device 'tpu'; name cpu, gpu, gpu:1, a list such as cpu:0,cpu:1, or auto"),
        (["--device", "cpu:0,cpu:0"], "is named twice"),
        (["--device", "gpu:99"], "gpu(99) is not there: MXNet sees"),
        (["--device", "cpu:x"], "there is no device 'cpu:x'"),
        (["--data", "nowhere"], "nowhere: is no directory, and none of the data sets digits, mnist, fashion-mnist"),
        (["--data", __file__], "is no directory"),
        (["--data", "."], "there is neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz"),
        (["--save", __file__], "nothing can be saved there: File exists"),
        (["--save", "/proc/run"], "/proc/run: nothing can be saved there: "),
        (["--save", "x" * 300], "nothing can be saved there: File name too long"),
        (["--resume", "nowhere"], "nowhere: is no directory; a run that was saved holds folders such as epoch-0001"),
        (["--resume", ""], "is no directory"),
        (["--resume", __file__], "is no directory"),
        (["--unheard-of"], "unrecognized arguments: --unheard-of"),
        (["lenet"], "unrecognized arguments: lenet"),
    ],
    ids=lambda words: " ".join(map(str, words))[:50] if isinstance(words, list) else "",
)
def test_bad_input(words, sentence, capsys):
    quick = [word for word in QUICK if "--data" not in words or word not in ("--data", "digits")]
    assert refused(capsys, train(*quick, *words), sentence)
    assert not Path("runs").exists() or not list(Path("runs").glob("*/epoch-*"))  # nothing was begun


def images(directory, size, classes=10, extra=0):
    """Random data in a directory"""
    Path(directory).mkdir()
    rng = np.random.default_rng(0)
    for prefix in ("train", "t10k"):
        tm.idx.write(f"{directory}/{prefix}-images-idx3-ubyte", rng.integers(0, 256, (30, *size)).astype("u1"))
        labels = rng.integers(0, classes, 30 + extra).astype("u1")
        tm.idx.write(f"{directory}/{prefix}-labels-idx1-ubyte", labels)
    return directory


@pytest.mark.parametrize("model", ["lenet", "dropout-cnn"])
@pytest.mark.parametrize("size", [(4, 4), (28, 4), (6, 6), (15, 13)])
def test_images_too_small_for_the_kernels(model, size, capsys):
    status = train("--data", images("data", size), "--model", model)
    assert refused(capsys, status, "a window of ", "pixels of the padded image; it must fit at least once")


@pytest.mark.parametrize(
    "size, model", [((1, 1), "softmax"), ((3, 50), "mlp"), ((16, 16), "lenet"), ((17, 30), "lenet")]
)
def test_other_sizes_of_images(size, model, capsys):
    assert train("--data", images("data", size), "--model", model, "--epochs", 1) == 0


def test_labels_that_are_not_the_images(capsys):
    status = train("--data", images("data", (28, 28), extra=1))
    assert refused(capsys, status, "train-labels-idx1-ubyte: 30 images but labels of the shape (31,)")
    assert refused(
        capsys, train("--data", images("more", (28, 28), classes=40)), "labels are whole numbers from 0 to 9"
    )


def test_a_directory_that_holds_a_run(capsys):
    assert train(*QUICK, "--save", "run") == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    capsys.readouterr()
    status = train(*QUICK, "--save", "run")
    assert refused(capsys, status, "run: holds another run; resume that one, or save into another directory")
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_diverging(capsys):
    words = [*QUICK, "--model", "mlp", "--lr", "1e20", "--save", "run"]
    assert train(*words) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"the loss of epoch 1, batch 2 is (nan|inf), the learning rate 1e\+20; try a smaller one\n", error
    )
    assert checkpoint.newest("run")[0]["epoch"] == 0


def test_curves_that_cannot_be_drawn(capsys, monkeypatch):
    """do not spoil a run that has ended well"""
    Path("run/curves.png").mkdir(parents=True)
    assert train(*QUICK, "--save", "run") == 0
    out, err = capsys.readouterr()
    assert err == "the curves cannot be drawn: run/curves.png: cannot be written: Is a directory\n"
    assert out.endswith("epochs; saved in run\n")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert train("--resume", "run", "--epochs", 3, "--show") == 0
    out, err = capsys.readouterr()
    assert err.startswith("the curves cannot be drawn: ") and err.count("\n") == 1


def test_a_history_that_cannot_be_written(capsys):
    assert train(*QUICK, "--save", "run") == 0
    capsys.readouterr()
    Path("run/history.json").unlink()
    Path("run/history.json").mkdir()
    assert refused(
        capsys, train("--resume", "run", "--epochs", 3), "run/history.json: cannot be written: Is a directory"
    )
    Path("run/history.json").rmdir()
    assert train("--resume", "run", "--epochs", 3) == 0


def test_pixels_that_are_all_alike_cannot_be_normalised(capsys, tmp_path):
    for name in ("train", "t10k"):
        idx.write(tmp_path / f"{name}-images-idx3-ubyte", np.zeros((20, 28, 28), np.uint8))
        idx.write(tmp_path / f"{name}-labels-idx1-ubyte", np.arange(20, dtype=np.uint8) % 10)
    assert refused(capsys, train("--data", tmp_path, "--normalize"), "all pixels are alike; there is no deviation")


def test_out_of_memory(capsys, monkeypatch):
    for error in (MemoryError(), mx.MXNetError("Traceback:\n  File x\nMXNetError: Memory allocation failed\n")):

        def fails(*_, error=error, **__):
            raise error

        monkeypatch.setattr(tm.Run, "train", fails)
        assert train(*QUICK) == 1
        assert capsys.readouterr().err in ("out of memory\n", "MXNetError: Memory allocation failed\n")


# As a process


def test_a_process_that_is_refused():
    run = process("--lr", "-1", "--data", "digits")
    out, err = run.communicate(timeout=PATIENCE)
    assert (run.returncode, out, err) == (2, "", "lr of sgd must be positive, finite and at least 1.2e-38, not -1.0\n")


def test_without_standard_output():
    run = process("--data", "digits", "--limit", 60, "--epochs", 1, "--save", "run", preexec_fn=lambda: os.close(1))
    assert (run.wait(timeout=PATIENCE), run.stderr.read()) == (0, "")
    assert checkpoint.newest("run")[0]["epoch"] == 1


def test_a_reader_that_goes_away():
    """train.py | head -4: the run stops after the epoch that it could not print, which is saved"""
    run = process("--data", "digits", "--epochs", 500, "--save", "run")
    for _ in range(4):
        run.stdout.readline()
    run.stdout.close()
    assert run.wait(timeout=PATIENCE) == 2
    assert run.stderr.read() == "standard output cannot be written: Broken pipe\n"
    assert checkpoint.newest("run")[0]["epoch"] >= 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_an_output_that_is_full():
    with open("/dev/full", "w") as full:
        run = process(*QUICK, "--save", "run", stdout=full)
        assert run.wait(timeout=PATIENCE) == 2
    assert run.stderr.read() == "standard output cannot be written: No space left on device\n"


def test_a_terminal_that_cannot_print_a_dash():
    """adadelta has no learning rate, and – stands for it"""
    how = {**os.environ, "PYTHONIOENCODING": "ascii"}
    run = process(*QUICK, "--opt", "adadelta", env=how)
    out, err = run.communicate(timeout=PATIENCE)
    assert (run.returncode, err) == (0, "") and " ? " in out
