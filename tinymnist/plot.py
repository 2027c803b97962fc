"""Figures, drawn by matplotlib without a display; every function saves one and gives back its path."""

from __future__ import annotations

from pathlib import Path


def curves(history, title, path):
    """Loss and accuracy per epoch, on training and test images, from a list of train.Epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title)
    epochs = [e.epoch for e in history]
    for axes, what, train, test in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), ("loss", "train_accuracy"), ("test_loss", "test_accuracy")
    ):
        axes.plot(epochs, [getattr(e, train) for e in history], "o-", ms=3, label="training, as seen")
        axes.plot(epochs, [getattr(e, test) for e in history], "s-", ms=3, label="test, after the epoch")
        axes.set(xlabel="epoch", ylabel=what)
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    return Path(path)
