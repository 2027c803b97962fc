"""What a training shows while it runs: a progress bar on stderr during an epoch, a line on stdout after it."""

from __future__ import annotations

import sys

HEADER = "epoch     loss  train acc  test loss  test acc        lr   images/s  seconds"


class Progress:
    """Its methods on_batch and on_epoch are callbacks for Run.train. The bar is only shown on a terminal.

    intervals=True also prints loss and speed every log interval. quiet=True shows nothing.
    """

    def __init__(self, run, *, quiet=False, intervals=False):
        self.quiet, self.intervals, self.bar = quiet, intervals, None
        if not quiet:
            from tqdm import tqdm

            total, done = len(run.train_split.labels), run.position.batch * run.settings.batch_size
            look = {"unit": " images", "unit_scale": True, "dynamic_ncols": True, "leave": False, "disable": None}
            self.bar = tqdm(total=total, initial=done, **look)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()

    def on_batch(self, run, examples):
        if self.quiet:
            return
        position, interval = run.position, run.settings.log_interval
        if self.bar.n >= self.bar.total:
            self.bar.reset()
            self.bar.initial = 0
        self.bar.set_description(f"epoch {position.epoch + 1}/{run.settings.epochs}", refresh=False)
        if position.seen and position.batch % interval == 0:
            self.bar.set_postfix_str(f"loss {position.seen[-1][1]:.4f}", refresh=False)
            if self.intervals:
                figures = f"loss {position.seen[-1][1]:.4f}, {position.speed[-1]:,.0f} images/s"
                self.bar.write(f"      epoch {position.epoch + 1} batch {position.batch:5}: {figures}", file=sys.stdout)
        self.bar.update(examples)

    def on_epoch(self, run):
        if not self.quiet:
            self.bar.write(epoch_line(run.history[-1], len(run.train_split.labels)), file=sys.stdout)


def epoch_line(epoch, examples):
    """A line of figures under HEADER"""
    lr = "       –" if epoch.lr is None else f"{epoch.lr:8.4g}"
    return (
        f"{epoch.epoch:5} {epoch.loss:8.4f} {epoch.train_accuracy:10.4f} {epoch.test_loss:10.4f} "
        f"{epoch.test_accuracy:9.4f}  {lr} {examples / max(epoch.seconds, 1e-3):10,.0f} {epoch.seconds:8.2f}"
    )
