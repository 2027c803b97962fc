"""Figures, drawn by matplotlib without a display. They are saved as PNG files."""

from __future__ import annotations

import itertools
import math
import os
import sys
import webbrowser
from pathlib import Path
from unittest import mock

import numpy as np

from tinymnist.idx import replace_file

COLOURS = {"sgd": "red", "momentum": "blue", "adagrad": "green", "rmsprop": "orange", "adadelta": "black"}


def new_figure(width, height, title, **panels):
    """A figure with a title, and its axes. matplotlib is imported here because only those who draw need it."""
    with mock.patch.dict(os.environ):
        os.environ.pop("MPLBACKEND", None)  # a notebook's, which may not exist here; no backend is needed
        from matplotlib.figure import Figure  # not pyplot, which expects a display

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, parse_math=False)  # a $ in a name is a $
    return figure, figure.subplots(**panels)


def save_figure(figure, path):
    """Raises DataError if the file cannot be written."""
    with replace_file(path) as stream:
        figure.savefig(stream, format="png", dpi=100, pil_kwargs={"optimize": True})
    return Path(path)


def open_figure(path):
    """Open a figure in the program that shows pictures. Without a display, print a sentence on stderr instead."""
    display = sys.platform.startswith(("win", "darwin")) or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if not (display and webbrowser.open(Path(path).resolve().as_uri())):
        print(f"there is no display here; open {path} on another computer", file=sys.stderr)


def draw_curves(history, epoch_size, title, path, untrained=None):
    """Loss and accuracy of a run's history. `untrained` is the test loss and the test accuracy before training."""
    figure, (left, right) = new_figure(10, 4, title, ncols=2)
    points, label = [point for e in history for point in e.curve], "training, single batches"
    if not points:  # each epoch is shorter than the log interval
        points, label = [((e.epoch - 0.5) * epoch_size, e.loss) for e in history], "training, mean of each epoch"
    epochs, accuracies = [e.epoch for e in history], [100 * e.train_accuracy for e in history]
    tests = [(e.epoch, e.test_loss, e.test_accuracy) for e in history]
    test_epochs, test_losses, test_accuracies = np.array([(0, *untrained), *tests] if untrained else tests).T
    left.plot(*zip(*points), marker="." if len(points) < 50 else "", lw=0.7, color="tab:blue", label=label)
    left.plot(test_epochs * epoch_size, test_losses, "o", ms=5, color="tab:red", label="test", clip_on=False)
    left.update_datalim([(0, 0)])  # both axes start at 0
    left.set(title="loss", xlabel="training examples seen", ylabel="cross-entropy", xlim=(0, None), ylim=(0, None))
    left.xaxis.set_major_formatter("{x:,.0f}")
    left.locator_params(axis="x", nbins=5)
    right.plot(epochs, accuracies, "o-", ms=4, color="tab:blue", label="training, during the epoch")
    right.plot(test_epochs, 100 * test_accuracies, "o-", ms=4, color="tab:red", label="test, after the epoch")
    right.set(title="accuracy", xlabel="epoch", ylabel="accuracy, %", xlim=(test_epochs[0] - 0.3, epochs[-1] + 0.3))
    right.locator_params(axis="x", integer=True, min_n_ticks=1)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    return save_figure(figure, path)


def draw_comparison(results, title, path):
    """The accuracy by epoch on the training and the test set: a line for each rule, the range of its seeds shaded.

    `results` is the list in compare.json: {"label": …, "rule": …, "runs": [{"training": […], "test": […]}, …]}, in %.
    """
    figure, panels = new_figure(9, 4.5, title, ncols=2, sharey=True)
    for axes, name in zip(panels, ("training", "test")):
        styles = {rule: itertools.cycle(["-", "--", ":", "-."]) for rule in COLOURS}  # a rule may appear twice
        for result in results:
            values, rule = np.array([run[name] for run in result["runs"]]), result["rule"]
            style, epochs = {"color": COLOURS[rule], "ls": next(styles[rule])}, range(1, values.shape[1] + 1)
            axes.plot(epochs, values.mean(0), marker="o", ms=4, label=result["label"], **style)
            axes.fill_between(epochs, values.min(0), values.max(0), color=COLOURS[rule], alpha=0.12, lw=0)
        axes.set(title=f"{name} set", xlabel="epoch", ylabel=f"{name} accuracy, %", xlim=(0.7, epochs[-1] + 0.3))
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return save_figure(figure, path)


def draw_predictions(images, labels, predicted, confidence, disputed, title, path):
    """Images (N, H, W), dark on white, each under its prediction; mistakes are red. `labels` may be None.
    `disputed` (N,): where it is true, the label of a mistake gets a question mark.

    Images in colour, (N, H, W, 3), are drawn as they are.
    """
    wide = 2 if images.shape[2] > 1.5 * images.shape[1] else 1  # 2: a picture next to what the network sees
    captions, colours, columns = [], [], min(8 // wide, len(images))
    for n, (digit, p) in enumerate(zip(predicted, confidence)):
        label, mark = digit if labels is None else labels[n], "?" if disputed[n] else ""
        captions.append(f"{digit} ({100 * p:.1f} %)" + ("" if digit == label else f", is {label}{mark}"))
        colours.append("black" if digit == label else "tab:red")
    figure, axes = new_figure(max(1.25 * wide * columns, 5), 1.45 * math.ceil(len(images) / columns) + 0.5, title)
    draw_tiles(axes, images, captions, columns, colours, cmap="gray_r", vmin=0, vmax=255)
    return save_figure(figure, path)


def draw_tiles(axes, images, captions, columns, colours=None, **style):
    """Images (N, H, W) in rows of `columns`, all in one panel: a panel for each image takes ten times as long."""
    height, width = images.shape[1:3]
    for n, (image, caption) in enumerate(zip(images, captions)):
        x, y = n % columns * 1.12 * width, n // columns * 1.3 * height
        colour = colours[n] if colours else "black"
        picture = axes.imshow(image, extent=(x, x + width, y + height, y), interpolation="nearest", **style)
        axes.text(x + width / 2, y - 0.05 * height, caption, ha="center", fontsize=9, color=colour)
    axes.set(xlim=(0, 1.12 * columns * width), ylim=(y + height, -0.25 * height), anchor="N")
    axes.axis("off")
    return picture


def put_side_by_side(pictures, images):
    """Each picture (H, W, 3), and to its right what the network sees of it, dark on white: (N, height, width, 3)."""
    from PIL import Image, ImageOps

    pairs = []
    for picture, image in zip(pictures, images):
        size = (8 * image.shape[1], 8 * image.shape[0])
        left = ImageOps.pad(Image.fromarray(picture.astype(np.uint8)), size, color="lightgrey")
        right = Image.fromarray(255 - image).convert("RGB").resize(size, Image.NEAREST)
        framed = [ImageOps.expand(ImageOps.crop(one, 2), 2, "darkgrey") for one in (left, right)]
        pairs.append(np.hstack([np.asarray(one) for one in framed]))
    return np.stack(pairs)


def draw_confusion(matrix, path):
    """A confusion matrix. Only mistakes are coloured, because the diagonal is much larger."""
    title = f"confusion matrix: {np.trace(matrix):,} of {matrix.sum():,} predictions are correct"
    figure, axes = new_figure(6, 5.6, title)
    k, mistakes = len(matrix), matrix - np.diag(np.diag(matrix))
    picture = axes.imshow(mistakes, cmap="Reds", vmax=max(1, mistakes.max()))
    for i, j in np.ndindex(k, k):
        dark = mistakes[i, j] > 0.6 * mistakes.max() > 0
        colour = "white" if dark else "black" if matrix[i, j] else "lightgrey"
        axes.text(j, i, matrix[i, j], ha="center", va="center", fontsize=9, color=colour)
    axes.set(xlabel="predicted digit", ylabel="true digit", xticks=range(k), yticks=range(k))
    figure.colorbar(picture, label="mistakes", shrink=0.8)
    return save_figure(figure, path)


def draw_first_layer(model, path):
    """The weights of the first layer: the filters of a convolution, or for each output a weight for each pixel."""
    weight = next(iter(model.parameters.values())).asnumpy()
    output = "filter" if weight.ndim == 4 else "digit" if len(model.parameters) == 2 else "unit"
    title = f"first-layer weights of each {output}: red pixels count for it, blue pixels against it"
    images = weight.reshape(-1, *(weight.shape[2:] or model.image[1:]))
    n, largest = len(images), np.abs(images).max()
    columns = 5 if n == 10 else 8 if n <= 32 else 16
    height = max(0.95, 6 / columns) * math.ceil(n / columns) + 0.8
    figure, axes = new_figure(max(0.8 * columns + 1.5, 7.5), height, title)
    picture = draw_tiles(axes, images, range(n), columns, cmap="RdBu_r", vmin=-largest, vmax=largest)
    figure.colorbar(picture, label="weight", shrink=0.8)
    return save_figure(figure, path)
