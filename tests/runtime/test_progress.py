"""What a training shows: a line of numbers after each epoch, losses in between, and a bar on a terminal."""

import io
import re
import sys

import pytest
from commands import command
from runs import digits, make_run, stop_at
from tqdm import tqdm

import tinymnist as tm
from tinymnist.runtime import progress

pytestmark = pytest.mark.usefixtures("new_working_directory")
train = command("train")


def test_fit_prints_the_same_table(capsys):
    run = tm.fit(tm.softmax_regression(), tm.Optimizer("sgd", lr=0.1), digits(), epochs=2, progress=True)
    lines = [progress.epoch_line(epoch, 330) for epoch in run.history]
    assert capsys.readouterr() == ("\n".join([progress.HEADER, *lines, ""]), "")


def test_a_line_has_the_numbers_of_an_epoch():
    numbers = ["3", "1.2500", "0.5000", "1.5000", "0.2500"]
    epoch = tm.Epoch(3, 0.05, 1.25, 0.5, 1.5, 0.25, [], 0.25, [])
    assert progress.epoch_line(epoch, 330).split() == [*numbers, "0.05", "1,320", "0.25"]
    epoch = tm.Epoch(3, None, 1.25, 0.5, 1.5, 0.25, [], 0.0, [])  # without a learning rate; too short to be measured
    assert progress.epoch_line(epoch, 330).split() == [*numbers, "–", "330,000", "0.00"]
    for line in (progress.epoch_line(epoch, 330), progress.HEADER):
        assert len(line) == 76  # the columns end at the same places


def test_log_interval_adds_lines_within_an_epoch(capsys):
    assert train("--data digits --limit 200 --batch-size 20 --epochs 2 --log-interval 4 --save run") == 0
    found = [line for line in capsys.readouterr().out.splitlines() if " batch " in line]
    assert found == [
        f"      epoch {e.epoch} batch {batch:5}: loss {loss:.4f}, {speed:,.0f} images/s"
        for e in tm.resume("run").history
        for batch, (_, loss), speed in zip((4, 8), e.curve, e.speed)
    ]
    assert len(found) == 4
    assert train("--data digits --limit 200 --batch-size 1 --epochs 1 --save quiet") == 0  # 100 batches would be logged
    assert " batch " not in capsys.readouterr().out


@pytest.mark.parametrize("columns", [40, 80])
def test_the_bar_shows_epoch_loss_speed_and_time(columns, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for name, value in {"dynamic_ncols": False, "ncols": columns - 1, "mininterval": 0}.items():  # 0: every batch
        monkeypatch.setitem(progress.BAR, name, value)
    assert train("--data digits --limit 60 --batch-size 20 --save run --epochs 10 --log-interval 3") == 0
    bars = [line for line in capsys.readouterr().err.split("\r") if "epoch" in line]
    assert re.match(r"epoch 1/10 \S*img/s", bars[0])  # no loss has been read yet
    assert re.match(r"epoch 10/10 loss \d\.\d{3} +\d\S*[kM]img/s \d\d:\d\d", bars[-1])
    assert max(map(len, bars)) < columns


def test_the_bar_begins_where_the_epoch_was_stopped(monkeypatch):
    """330 examples, of which 30 have been seen before the stop. The caller's callbacks are called after the bar's."""
    bars = []

    def make_bar(total, **options):
        bars.append(tqdm(total=total, file=io.StringIO(), **options))
        return bars[0]

    monkeypatch.setattr(progress, "make_bar", make_bar)
    make_run(digits()).train(on_batch=stop_at(3), save="run")
    run, seen, epochs = tm.resume("run", digits()), [], []
    with progress.Progress(
        run, on_batch=lambda _, n: seen.append((bars[0].n, n)), on_epoch=lambda run: epochs.append(len(run.history))
    ) as shown:
        run.train(on_batch=shown.on_batch, on_epoch=shown.on_epoch)
    assert seen == [(n, 10) for n in [*range(40, 331, 10), *range(10, 331, 10)]] and epochs == [1, 2]
    assert bars[0].total == 330 and bars[0].disable  # closed


def test_nothing_is_shown_if_nobody_wants_it(capsys):
    run = make_run(digits())
    with progress.Progress(run, quiet=True, intervals=True) as shown:
        run.train(on_batch=shown.on_batch, on_epoch=shown.on_epoch)
        shown.write("a line")
    assert capsys.readouterr() == ("", "")
