"""The scripts: what they refuse, and what train.py prints and how it stops and resumes."""

import contextlib
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
from unittest.mock import Mock

import numpy as np
import pytest
from commands import DIGITS, ROOT, SCRIPT, command, finish, module, refused, start

import tinymnist as tm
from tinymnist.backend import mx
from tinymnist.experiments import recipes
from tinymnist.runtime import checkpoint, files

pytestmark = pytest.mark.usefixtures("new_working_directory")
cli, script, train = module("cli"), module("train"), command("train")
QUICK = "--data digits --limit 200 --epochs 2"


# Every script


@pytest.mark.parametrize(
    "error, status, sentence",
    [
        (tm.DataError("file: is bad"), 2, "file: is bad"),
        (ValueError("lr is bad"), 2, "lr is bad"),
        (ImportError("matplotlib is missing"), 2, "matplotlib is missing"),
        (IsADirectoryError(21, "Is a directory", "x.csv"), 2, "x.csv: Is a directory"),
        (tm.Diverged("the loss is nan"), 1, "the loss is nan"),
        (MemoryError(), 1, "out of memory"),
        (mx.MXNetError("Traceback:\n  line\nMXNetError: Memory allocation failed\n"), 1, "Memory allocation failed"),
        (KeyboardInterrupt(), 130, "stopped before the end"),
        (KeyboardInterrupt(signal.SIGTERM), 143, "stopped before the end"),
    ],
    ids=repr,
)
def test_an_error_becomes_a_sentence_and_a_status(error, status, sentence, capsys):
    assert cli.run(Mock(side_effect=error)) == status
    err = capsys.readouterr().err
    assert err.endswith(f"{sentence}\n") and err.count("\n") == 1


@pytest.mark.parametrize("name", ["train", "compare", "predict", "bench", "launch", "scaling", "make_digits"])
def test_help_describes_every_option_in_100_columns(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])  # its name begins each line of the usage
    with contextlib.suppress(SystemExit):
        assert command(name)("--help") == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    assert not re.findall(r"^  -\S+(?: \S+)*\n(?! {10})", text, re.M)  # options without a description


BAD_INPUT = """
train lenet                                    unrecognized arguments: lenet; --help lists the options
train --opt adam                               argument --opt: invalid choice: 'adam'
train --opt adadelta --lr 1                    adadelta has no --lr; use --opt sgd or momentum or adagrad or rmsprop
train --model resnet                           argument --model: invalid choice: 'resnet'
train --activation relu                        softmax has no --activation; use --model mlp or lenet or dropout-cnn
train --model lenet --filters 5                (5,) and (5, 5) must be equally long: a number for each
train --model dropout-cnn --filters 5 6 7      dropout_cnn has two convolutions, so it cannot have filters (5, 6, 7)
train --opt adadelta --one-cycle               adadelta has no learning rate, so it cannot have one cycle of it
train --model lenet --filters 5 0              filters must be whole numbers of at least 1, not 5 0
train --model lenet --hidden 5 6               lenet has one hidden layer, not 2; mlp can have several
train --recipe cake                            there is no recipe 'cake'; the recipes are softmax-sgd, softmax-momentum
launch --workers 2 --model mlp                 launch.py has no option --model; write the options of scripts/train.py
train --limit 0                                limit must be a whole number of at least 1, not 0
train --hold-out 0                             of 1,497 training images 1 to all but one can be held out, not 0
train --hold-out 1497                          of 1,497 training images 1 to all but one can be held out, not 1,497
train --save-every -1                          save every must be a whole number of at least 0, not -1
train --save run                               run: holds another or a damaged run; resume it, or save into another
train --resume run/epoch-0001                  run/epoch-0001: is a checkpoint; name the directory of its run, run
train --resume run --rate 0                    --rate cannot be given with --resume: the saved run has its own
train --resume run --lr 1                      --lr cannot be given with --resume
train --resume run --model mlp                 --model cannot be given with --resume
train --resume run --opt sgd                   --opt cannot be given with --resume
train --resume run --recipe mlp                --recipe cannot be given with --resume
train --resume run --save x                    --save cannot be given with --resume
train --resume run --normalize                 run began with normalize False and cannot continue with True
train --resume run --hold-out 5                run began with other data (the embedded UCI digits
train --resume run --data nowhere              nowhere: is not a directory
compare --rules sgd adam                       there is no update rule 'adam'; the rules are sgd, momentum, adagrad
compare --rules sgd:lr                         'sgd:lr': 'lr' is not NAME=NUMBER, for example sgd:lr=0.1
compare --seeds 0                              --seeds and --epochs must be at least 1, not 0 and 5
compare --epochs 0                             --seeds and --epochs must be at least 1, not 1 and 0
compare --batch-size 0                         batch size must be
compare --hold-out 0                           of 1,497 training images 1 to all but one can be held out, not 0
compare --activation tanh                      softmax has no --activation
compare --device tpu                           there is no device 'tpu'
predict nowhere                                nowhere: is not a directory; a saved run holds directories
predict run --data nowhere                     nowhere: is not a directory
predict run --images small                     the images in small are uint8 of the shape (300, 14, 28)
predict run --images empty                     the images in empty are uint8 of the shape (0, 28, 28)
predict run --images images --labels labels    labels: there is a label 10
predict run --labels labels                    --labels needs --images
predict run --index 300                        --index must be from 0 to 299, not 300
predict run --index 0 -1                       --index must be from 0 to 299, not 0 -1
predict run x.png                              x.png: cannot be read
predict run x.png --index 0                    --index cannot be given with pictures
predict run x.png --data digits                give only one of pictures, --images and --data
predict run --mistakes -95                     --mistakes must be 0 or more, not -95
predict run --output p.txt                     --output must end in .npy or .csv, not p.txt
predict run --output nowhere/p.npy             nowhere/p.npy: cannot be written: No such file or directory
predict run --show                             --show needs --figures
bench --seconds inf                            --seconds is inf; a turn takes a positive number
bench --seconds 0                              --seconds is 0.0
bench --rounds 0 --pixels                      --rounds is 0
bench --threads 2 0                            --threads has 0; a number of threads is 1 or more
bench --only cake                              --only cake: no name of a workload contains it; there are softmax sgd,
bench --torch-python nowhere                   --torch-python nowhere: there is no such program
bench --json nowhere/a.json                    --json nowhere/a.json: there is no such directory
bench --plot .                                 --plot .: it is a directory
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a saved run and files of images and labels"""
    place, test = tmp_path_factory.mktemp("place"), tm.load("digits").test
    files = {"images": test.images, "small": test.images[:, ::2], "empty": test.images[:0], "labels": test.labels + 1}
    for name, array in files.items():
        tm.idx.write(place / name, array)
    assert train(QUICK, "--save", place / "run") == 0
    return place


@pytest.mark.parametrize("line", BAD_INPUT.strip().splitlines())
def test_bad_input_is_one_sentence_before_anything_begins(line, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    for name in ("measure", "print_pixel_costs"):
        monkeypatch.setattr(module("bench"), name, lambda *_: pytest.fail("it measures"))
    monkeypatch.setenv("TINYMNIST_DATA", str(DIGITS))
    words, sentence = re.split(" {3,}", line)
    name, *words = words.split()
    assert refused(capsys, command(name)(*words), sentence)
    assert len([*place.rglob("epoch-*")]) == 2  # nothing was trained


def test_a_python_without_the_packages_says_what_to_type():
    status, out, err = finish(start("--opt adagrad", python=["-SE", SCRIPT]))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"{sys.executable} cannot import tinymnist: No module named 'tinymnist'. Type in {ROOT}: ")
    assert err.endswith(".venv/bin/python scripts/train.py --opt adagrad\n")


@pytest.mark.parametrize("seconds", [0, 0.5, 1.3])
@pytest.mark.parametrize("name", ["train", "compare", "predict", "bench", "scaling", "launch"])
def test_ctrl_c_during_the_start_prints_no_traceback(name, seconds):
    """After Python itself has started, which takes seconds on a busy machine"""
    run = start(*(["nowhere"] if name == "predict" else []), python=[ROOT / "scripts" / f"{name}.py"])
    end = time.monotonic() + 20
    while "_ctypes" not in Path(f"/proc/{run.pid}/maps").read_text() and time.monotonic() < end:
        time.sleep(0.01)  # processes.py imports ctypes after its first statement
    time.sleep(seconds)
    run.send_signal(signal.SIGINT)
    status, _, err = finish(run)
    assert status in (-signal.SIGINT, 130, 143, 2) and "Traceback" not in err, err


def find_family(mark):
    """The processes that have this text in their environment"""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_text(errors="replace") and (path.parent / "cmdline").read_text():  # else a zombie
                found.append(path)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize(
    "words, children",
    [
        (("bench.py", "--data", DIGITS, "--only mlp --threads 1 --seconds 3 --torch-python true"), 3),
        (("scaling.py", "--models lenet --steps 10000"), 1),
        (("launch.py", "--", "--data digits --epochs 10000"), 4),
    ],
)
def test_no_process_is_left_after_a_signal(words, children, number, tmp_path):
    """The children may be busy for minutes."""
    script, *words = words
    environment = {**os.environ, "TMPDIR": str(tmp_path), "FAMILY": f"{tmp_path}-family"}
    run = start(*words, python=[ROOT / "scripts" / script], env=environment)
    end = time.monotonic() + 60
    while len(find_family(environment["FAMILY"])) < 1 + children:
        assert time.monotonic() < end and run.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    run.send_signal(number)
    status, _, err = finish(run)
    assert status in (-number, 128 + number, 143) and "Traceback" not in err, err
    end = time.monotonic() + 5
    while find_family(environment["FAMILY"]):
        assert time.monotonic() < end, "a process was left"
        time.sleep(0.05)
    assert number == signal.SIGKILL or not list(tmp_path.glob("tmp*"))  # temporary files


@pytest.mark.parametrize("closed", [1, 2])
def test_standard_output_and_standard_error_may_be_closed(closed):
    streams = {"stdout": None, "stderr": None, "preexec_fn": lambda: os.close(closed)}
    assert finish(start(QUICK, "--save run", **streams))[0] == 0
    assert checkpoint.newest("run")[0]["epoch"] == 2


def test_a_reader_that_ends_stops_the_script():
    """train.py | head: the epoch that could not be printed is saved."""
    run = start("--data digits --epochs 500 --save run")
    next(line for line in run.stdout if line.startswith("epoch"))
    run.stdout.close()
    run.stdout = None
    assert finish(run) == (2, None, "standard output cannot be written: Broken pipe\n")
    assert checkpoint.newest("run")[0]["epoch"] >= 1


def test_a_terminal_without_dashes_prints_question_marks():
    """adadelta has no learning rate, which is printed as –"""
    status, out, err = finish(start(QUICK, "--opt adadelta", env={**os.environ, "PYTHONIOENCODING": "ascii"}))
    assert (status, err) == (0, "") and " ? " in out


# What train.py prints


def test_without_options_softmax_regression_trains(capsys):
    """20 epochs of the embedded digits by sgd, saved in a new directory."""
    assert train("--data digits") == 0
    out, err = capsys.readouterr()
    first, source, cores, *table, last = out.splitlines()
    assert first == "softmax_regression (7,850 parameters) by sgd (lr 0.1), seed 0" and cores.startswith("MXNet uses ")
    assert re.fullmatch(r"the embedded UCI digits: 1,497 training and 300 test images of 28x28 from [^;]*", source)
    assert len(table) == 21 and len({len(line) for line in table}) == 1  # aligned
    (directory,) = Path("runs").iterdir()
    assert last.endswith(f" after 20 epochs; saved in {directory} (curves.png shows the curves)")
    assert float(last.split()[2]) > 0.85 and err == ""
    assert sorted(p.name for p in directory.iterdir()) == ["curves.png", "epoch-0019", "epoch-0020", "history.json"]
    assert f"{json.loads((directory / 'history.json').read_text())[-1]['loss']:.4f}" in table[-1]


def test_runs_of_the_same_second_have_a_directory_each(capsys, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "20261125-120000")
    for end in ("", "-2"):
        assert train(QUICK, "--quiet") == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert f"saved in runs/softmax_regression-sgd-20261125-120000{end} " in line
    with ThreadPoolExecutor() as pool:
        directories = set(pool.map(lambda _: files.new_run_directory("runs/name"), range(20)))
    assert len(directories) == 20 and all(path.is_dir() for path in directories)
    assert files.new_run_directory("new/folder/name").is_dir()
    with pytest.raises(tm.DataError, match="File exists"):
        files.new_run_directory(Path(__file__) / "name")


def test_a_part_of_a_checkpoint_is_removed_even_if_no_longer_name_is_possible(tmp_path):
    part = tmp_path / ("x" * 250 + ".part")
    part.touch()
    files.discard(part)
    assert not part.exists()


def test_the_learning_rate_stops_falling_at_the_smallest_float32():
    assert train(QUICK, "--lr 1e-30 --lr-decay 1e-10 --epochs 4 --save run") == 0
    rates = [epoch["lr"] for epoch in checkpoint.newest("run")[0]["history"]]
    assert rates == pytest.approx([1e-30, *[float(np.finfo(np.float32).tiny)] * 3])


def test_images_may_have_other_sizes(capsys):
    rng = np.random.default_rng(0)
    for height, width, model in ((1, 1, "softmax"), (3, 50, "mlp"), (17, 30, "lenet")):
        for part in ("train", "t10k"):
            tm.idx.write(f"{part}-images-idx3-ubyte", rng.integers(0, 256, (30, height, width), np.uint8))
            tm.idx.write(f"{part}-labels-idx1-ubyte", rng.integers(0, 10, 30, np.uint8))
        assert train("--data . --epochs 1 --model", model) == 0
    assert refused(capsys, train("--data . --model lenet --kernels 5 8"), "a window of 8 is larger than the 6 pixels")
    tm.idx.write("train-images-idx3-ubyte", np.full((30, 17, 30), 7, np.uint8))
    assert refused(capsys, train("--data . --normalize"), "all pixels are equal")


def test_the_curves_are_drawn_whatever_backend_a_notebook_has_chosen():
    chosen = "module://matplotlib_inline.backend_inline"  # which is not installed
    run = start(QUICK, "--save run", env={**os.environ, "MPLBACKEND": chosen})
    status, out, err = finish(run)
    assert (status, err) == (0, "") and Path("run/curves.png").is_file(), out


def test_a_wrong_number_of_threads_is_one_sentence():
    status, out, err = finish(start(QUICK, env={**os.environ, "OMP_NUM_THREADS": "abc"}))
    assert (status, out, err) == (2, "", "OMP_NUM_THREADS must be a whole number, not 'abc'\n")


def test_a_tilde_is_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert train(QUICK, "'--save=~/run'") == 0
    assert train("'--resume=~/run' --epochs 3") == 0
    assert (tmp_path / "run" / "epoch-0003").is_dir()


def test_a_run_succeeds_without_its_figure(capsys, monkeypatch):
    Path("run/curves.png").mkdir(parents=True)
    assert train(QUICK, "--save run") == 0
    out, err = capsys.readouterr()
    assert err == "the curves cannot be drawn: run/curves.png: cannot be written: Is a directory\n"
    assert out.endswith("epochs; saved in run\n")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert train("--resume run --epochs 3 --show") == 0
    err = capsys.readouterr().err
    assert err.startswith("the curves cannot be drawn: ") and err.count("\n") == 1


# How it stops and resumes


def get_figures(text):
    """The printed lines without everything that depends on the clock"""
    lines = [line for line in text.splitlines() if "images/s" not in line]
    return [line[:56] if re.match(r" +\d+ ", line) else line.split("; saved in")[0] for line in lines]


def test_resume_restores_everything(capsys):
    """Model, rule, data, held-out images and all settings: the figures are those of a run that was not stopped."""
    what = f"--data {DIGITS} --hold-out 200 --limit 330 --model dropout-cnn --rate 0.3 --hidden 20 --activation tanh"
    how = "--opt rmsprop --lr 0.002 --rho 0.8 --eps 1e-6 --lr-decay 0.7 --batch-size 10 --seed 3"
    more = "--normalize --augment --no-compile --device cpu:1"
    assert train(what, how, more, "--epochs 3") == 0
    expected = get_figures(capsys.readouterr().out)
    assert expected[0].endswith(" by rmsprop (lr 0.002, rho 0.8, eps 1e-06), seed 3")
    assert train(what, how, more, "--epochs 1 --save 'a b' --save-every 16") == 0
    first = get_figures(capsys.readouterr().out)
    assert train("--resume 'a b' --epochs 3") == 0
    second = get_figures(capsys.readouterr().out)
    assert first[:4] + second[3:] == expected and first[:3] == second[:3]
    assert {"compile": False, "device": "cpu:1"}.items() <= checkpoint.newest("a b")[0]["settings"].items()


def test_a_complete_run_is_reported_again_even_if_its_last_checkpoint_is_damaged(capsys):
    assert train(QUICK, "--save run") == 0
    last_line = capsys.readouterr().out.splitlines()[-1]
    for sentence in ("run has ended; give --epochs a number above 2", "run/epoch-0002/model.params: is damaged"):
        assert train("--resume run") == 0
        out, err = capsys.readouterr()
        assert out.splitlines()[-1] == last_line and err.startswith(sentence) and err.count("\n") == 1
        for file in Path("run").glob("epoch-0002*/model.params"):
            file.write_bytes(b"")


NUMBERS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
RUN = "--model dropout-cnn --batch-size 10 --log-interval 1 --data digits --limit 330"


def send_signal(monkeypatch, owner, name, number, times=1):
    """Raise a signal when owner.name is called for the `times`-th time. Returns the handlers of both signals then."""
    original, count, handlers = getattr(owner, name), itertools.count(1), []

    def call(*args, **kwargs):
        if next(count) == times:
            signal.raise_signal(number)
            handlers.extend(map(signal.getsignal, (signal.SIGINT, signal.SIGTERM)))
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)
    return handlers


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
    ],
)
def test_a_stopped_run_resumes_as_if_it_had_not_stopped(owner, name, times, where, number, monkeypatch, capsys):
    assert train(RUN, "--epochs 2") == 0
    expected = get_figures(capsys.readouterr().out)[-1]
    with monkeypatch.context() as patch:
        handlers = send_signal(patch, owner, name, number, times)
        assert train(RUN, "--epochs 2 --save 'a run'") == 128 + number
    assert handlers == [signal.SIG_DFL] * 2  # a second signal ends even a process that hangs
    out, err = capsys.readouterr()
    stopped, what_to_type = out.splitlines()[-1].split("; continue with: ")
    assert (stopped, err) == (f"stopped {where}", "")
    assert shlex.split(what_to_type) == [sys.executable, SCRIPT, "--resume", "a run"]
    assert train("--resume 'a run'") == 0
    assert get_figures(capsys.readouterr().out)[-1] == expected
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


@NUMBERS
@pytest.mark.parametrize(
    "owner, name, epochs",
    [(recipes, "load", 0), (recipes, "Run", 0), (script.cli.Parser, "parse_args", 0), (script, "report", 2)],
)
def test_a_signal_before_or_after_the_training_ends_the_process(owner, name, epochs, number, monkeypatch, capsys):
    send_signal(monkeypatch, owner, name, number)
    assert train(QUICK, "--save run") == 128 + number
    assert capsys.readouterr().err == "stopped while nothing was being trained\n"
    assert [path.name for path in Path().glob("run/epoch-*2")] == ["epoch-0002"] * (epochs == 2)


@NUMBERS
def test_a_run_that_is_stopped_at_its_end_is_reported_as_complete(number, monkeypatch, capsys):
    """There is nothing to continue. The status tells a shell that Ctrl-C was pressed."""
    send_signal(monkeypatch, tm.Run, "finish_epoch", number, 2)
    assert train(QUICK, "--save run") == 128 + number
    out, err = capsys.readouterr()
    assert re.match("test accuracy .* after 2 epochs; saved in run ", out.splitlines()[-1]) and err == ""


def test_a_stopped_recipe_of_two_parts_continues_to_the_end_of_both(monkeypatch, capsys):
    send_signal(monkeypatch, tm.Run, "finish_epoch", signal.SIGINT, 3)
    assert train("--recipe dropout --data digits --limit 200 --save run") == 130
    assert re.search("stopped after 3 epochs; .* --resume run --epochs 8\n$", capsys.readouterr().out)


def test_an_ignored_signal_stays_ignored():
    """nohup and the & of a shell ignore SIGINT."""
    run = start("--data digits --epochs 50", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    next(line for line in run.stdout if line.startswith("    1 "))
    run.send_signal(signal.SIGINT)
    assert finish(run)[0] == 0


def test_a_stopped_process_prints_a_command_that_can_be_pasted():
    run = start("--data digits --model lenet --epochs 1000 --save run")
    next(line for line in run.stdout if line.startswith("    1 "))
    run.send_signal(signal.SIGINT)
    status, out, err = finish(run)
    state, _, damaged = checkpoint.newest("run")
    assert (status, err, damaged) == (130, "", [])
    pasted = out.split("; continue with: ")[1].strip() + f" --epochs {state['epoch'] + 1} --quiet"
    assert "test accuracy" in subprocess.run(pasted, shell=True, check=True, capture_output=True, text=True).stdout


def test_a_command_has_relative_paths_where_possible(monkeypatch):
    monkeypatch.setattr(sys, "executable", str(ROOT / "a venv" / "bin" / "python"))
    monkeypatch.chdir(ROOT)
    assert cli.make_command(SCRIPT, "--epochs", 8) == "'a venv/bin/python' scripts/train.py --epochs 8"
    monkeypatch.chdir(ROOT / "scripts")
    assert shlex.split(cli.make_command(SCRIPT)) == [sys.executable, "train.py"]
