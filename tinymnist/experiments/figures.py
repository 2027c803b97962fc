"""Figures, drawn by matplotlib without a display. Every function saves one and gives back its path."""

from __future__ import annotations

import itertools
import os
import sys
import webbrowser
from pathlib import Path

import numpy as np

COLOURS = {"sgd": "red", "momentum": "blue", "adagrad": "green", "rmsprop": "orange", "adadelta": "black"}


def blank(width, height, title):
    """A figure with a title, not by pyplot, which wants a display. Only who draws needs matplotlib: imported here."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, parse_math=False)  # a $ in a name is a $
    return figure


def saved(figure, path):
    figure.savefig(path, dpi=100, pil_kwargs={"optimize": True})
    return Path(path)


def show(path):
    """Opens a figure in whatever this machine shows pictures with; where there is no display, says so."""
    display = sys.platform.startswith(("win", "darwin")) or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if not (display and webbrowser.open(Path(path).resolve().as_uri())):
        print(f"there is no display here; {path} can be opened elsewhere", file=sys.stderr)


def curves(history, examples, title, path, untrained=None):
    """Loss against examples seen, and accuracy after every epoch of so many examples, from a list of train.Epoch.

    `untrained` is (loss, accuracy) on the test set before the first step, where that was measured.
    """
    figure = blank(10, 4, title)
    left, right = figure.subplots(1, 2)
    epochs = [e.epoch for e in history]
    points = [point for e in history for point in e.curve]  # none where an epoch is shorter than log_interval
    if points:
        left.plot(*zip(*points), lw=0.7, color="tab:blue", label="training, single batches")
    else:
        middles = [(e - 0.5) * examples for e in epochs]
        left.plot(middles, [e.loss for e in history], label="training, mean of the epoch")
    tested = [(0, *untrained)] if untrained else []
    tested += [(e.epoch, e.test_loss, e.test_accuracy) for e in history]
    tested_epochs, losses, accuracies = zip(*tested)
    left.plot([e * examples for e in tested_epochs], losses, "o", ms=5, color="tab:red", label="test")
    left.set(title="loss", xlabel="training examples seen", ylabel="cross-entropy, nats", ylim=(0, None))
    left.xaxis.set_major_formatter("{x:,.0f}")
    left.xaxis.get_major_locator().set_params(nbins=5)
    right.plot(epochs, percent([e.train_accuracy for e in history]), "o-", ms=4, label="training, as they were seen")
    right.plot(tested_epochs, percent(accuracies), "o-", ms=4, color="tab:red", label="test, after the epoch")
    right.set(title="accuracy", xlabel="epoch", ylabel="accuracy, %")
    right.xaxis.get_major_locator().set_params(integer=True)
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    return saved(figure, path)


def comparison(rules, title, path):
    """Accuracy per epoch on the training set and on the test set: a line per rule, its spread over seeds shaded.

    rules is a list of (label, rule, training, test), the latter two of shape (seeds, epochs), in %.
    """
    figure, styles = blank(9, 4, title), {}
    panels = figure.subplots(1, 2, sharey=True)
    for label, rule, *accuracies in rules:
        style = next(styles.setdefault(rule, itertools.cycle(["-", "--", ":", "-."])))  # a rule may come twice
        for axes, values in zip(panels, map(np.asarray, accuracies)):
            epochs = range(1, values.shape[1] + 1)
            axes.plot(epochs, values.mean(0), style, marker="o", ms=3, color=COLOURS[rule], label=label)
            axes.fill_between(epochs, values.min(0), values.max(0), color=COLOURS[rule], alpha=0.12, lw=0)
    for axes, name in zip(panels, ("training", "test")):
        axes.set(title=f"{name} set", xlabel="epoch", ylabel=f"{name} accuracy, %")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    panels[1].legend(loc="lower right", fontsize=8)
    return saved(figure, path)


def grid(images, captions, wrong, title, path, columns=8):
    """Images (N, H, W), as dark ink on white, each under its caption, red where it is wrong."""
    columns = min(columns, len(images))
    figure = blank(max(1.25 * columns, 5), 1.45 * -(-len(images) // columns) + 0.5, title)
    colours = ["tab:red" if bad else "black" for bad in wrong]
    tiles(figure.subplots(), images, captions, columns, colours, cmap="gray_r", vmin=0, vmax=255)
    return saved(figure, path)


def tiles(axes, images, captions, columns, colours, **style):
    """Lays images (N, H, W) in rows of so many columns: all in one panel, for a panel each takes ten times as long."""
    _, height, width = images.shape
    for n, (image, caption, colour) in enumerate(zip(images, captions, colours)):
        x, y = n % columns * 1.12 * width, n // columns * 1.3 * height
        picture = axes.imshow(image, extent=(x, x + width, y + height, y), interpolation="nearest", **style)
        axes.text(x + width / 2, y - 0.05 * height, caption, ha="center", fontsize=9, color=colour)
    axes.set(xlim=(0, 1.12 * columns * width), ylim=(y + height, -0.25 * height))
    axes.set_anchor("N")
    axes.axis("off")
    return picture


def confusion(matrix, title, path):
    """How often digit i (row) was read as j (column); the mistakes in colour, as the diagonal would drown them."""
    figure = blank(6, 5.6, title)
    axes, k = figure.subplots(), len(matrix)
    mistakes = np.where(np.eye(k, dtype=bool), 0, matrix)
    picture = axes.imshow(mistakes, cmap="Reds", vmax=max(1, mistakes.max()))
    for i, j in np.ndindex(k, k):
        dark = mistakes[i, j] > 0.6 * mistakes.max() > 0
        style = {"color": "white" if dark else "black" if matrix[i, j] else "lightgrey"}
        axes.text(j, i, matrix[i, j], ha="center", va="center", fontsize=9, **style)
    axes.set(xlabel="predicted digit", ylabel="true digit", xticks=range(k), yticks=range(k))
    figure.colorbar(picture, label="mistakes", shrink=0.8)
    return saved(figure, path)


def first_layer(model, path):
    """What the first layer looks for: the filters of a convolution, or a picture of the weights of each output."""
    weight = next(iter(model.parameters.values())).asnumpy()
    if weight.ndim == 4:
        weight, title = weight[:, 0], f"the {len(weight)} filters of the first layer, on the first channel"
    else:
        weight, outputs = weight.reshape(-1, *model.image[1:]), "digit" if len(model.parameters) == 2 else "unit"
        title = f"the first layer's weights, a picture per {outputs}: red pixels speak for it, blue ones against"
    columns = 5 if len(weight) == 10 else 8 if len(weight) <= 32 else 16
    figure = blank(max(0.8 * columns + 1.5, 7.5), max(0.95, 6 / columns) * -(-len(weight) // columns) + 0.8, title)
    axes, most = figure.subplots(), np.abs(weight).max()
    style = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    picture = tiles(axes, weight, range(len(weight)), columns, ["black"] * len(weight), **style)
    figure.colorbar(picture, label="weight", shrink=0.8)
    return saved(figure, path)


def percent(shares):
    return [100 * share for share in shares]
