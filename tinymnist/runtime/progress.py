"""What a training shows: a progress bar on stderr during an epoch, and a line of numbers on stdout after it."""

from __future__ import annotations

import sys
import threading

HEADER = "epoch     loss  train acc  test loss  test acc        lr   images/s  seconds"
# The text comes before the bar: on a narrow terminal the bar gets shorter, and loss and speed stay.
BAR = {"bar_format": "{desc} {rate_fmt} {remaining} |{bar}|", "unit": "img", "unit_scale": True, "dynamic_ncols": True}


def make_bar(total, **options):
    """A tqdm bar, which only a terminal shows."""
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # tqdm's own lock is a semaphore, which a killed process would leave behind
    return tqdm(total=total, **{"leave": False, "disable": None, **BAR, **options})


class Progress:
    """Prints HEADER. Its methods on_batch and on_epoch are callbacks for Run.train. Only a terminal gets the bar.

    intervals=True also prints loss and speed every log interval. quiet=True prints nothing. It calls the arguments
    on_batch and on_epoch after its own.
    """

    def __init__(self, run, *, quiet=False, intervals=False, on_batch=None, on_epoch=None):
        self.intervals, self.bar = intervals, None  # bar: None if quiet
        self.next_on_batch, self.next_on_epoch = on_batch, on_epoch
        if not quiet:
            total, done = len(run.train_split.labels), run.position.batch * run.settings.batch_size
            self.bar = make_bar(total, initial=done)
        self.write(HEADER)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()

    def write(self, line):
        """Print a line above the bar."""
        if self.bar is not None:
            self.bar.write(line, file=sys.stdout)

    def on_batch(self, run, examples):
        if self.bar is not None:
            self.show_batch(run, examples)
        if self.next_on_batch:
            self.next_on_batch(run, examples)

    def show_batch(self, run, examples):
        position = run.position
        if self.bar.n >= self.bar.total:
            self.bar.initial = 0  # a resumed epoch may have begun in its middle; the next one does not
            self.bar.reset()
        loss = position.seen[-1][1] if position.seen else None
        text = f"epoch {position.epoch + 1}/{run.settings.epochs}" + ("" if loss is None else f" loss {loss:.3f}")
        self.bar.set_description_str(text, refresh=False)
        if self.intervals and position.seen and position.batch % run.settings.log_interval == 0:
            numbers = f"loss {loss:.4f}, {position.speed[-1]:,.0f} images/s"
            self.write(f"      epoch {position.epoch + 1} batch {position.batch:5}: {numbers}")
        self.bar.update(examples)

    def on_epoch(self, run):
        self.write(epoch_line(run.history[-1], len(run.train_split.labels)))
        if self.next_on_epoch:
            self.next_on_epoch(run)


def epoch_line(epoch, examples):
    """A line of numbers under HEADER"""
    lr = "       –" if epoch.lr is None else f"{epoch.lr:8.4g}"
    return (
        f"{epoch.epoch:5} {epoch.loss:8.4f} {epoch.train_accuracy:10.4f} {epoch.test_loss:10.4f} "
        f"{epoch.test_accuracy:9.4f}  {lr} {examples / max(epoch.seconds, 1e-3):10,.0f} {epoch.seconds:8.2f}"
    )
