"""Classify digits with a saved run: python scripts/predict.py RUN seven.png, or its test images: … RUN"""

from __future__ import annotations

import cli  # isort: skip

import csv
import io
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

import tinymnist as tm
from tinymnist.checks import check_images, check_split
from tinymnist.datasets.load import load_test_split
from tinymnist.datasets.mapped import map_file
from tinymnist.experiments import figures
from tinymnist.experiments.evaluation import confusion_matrix, find_mistakes, is_disputed
from tinymnist.idx import replace_file
from tinymnist.runtime import checkpoint

SHOWN = 40  # images in a figure


def make_parser():
    p = cli.Parser(description="Classify pictures, an IDX file or the test images of a data set with a saved run.")
    add = p.add_argument
    add("run", metavar="RUN", help="the directory in which scripts/train.py saved a run")
    add("pictures", nargs="*", default=[], metavar="PICTURE", help="PNG or JPEG files, each with one digit")
    add("--images", metavar="FILE", help="an IDX file of images")
    add("--labels", metavar="FILE", help="an IDX file of the labels of --images")
    add("--data", metavar="NAME", help="as for scripts/train.py; default: what the run was trained on")
    add("--index", type=int, nargs="+", metavar="N", help="classify only these images, counted from 0; default: all")
    add("--output", metavar="FILE", help="write the class probabilities to this .npy or .csv file; .csv names pictures")
    add("--figures", metavar="DIR", help="draw images, mistakes, confusion matrix and first layer in DIR")
    add("--mistakes", type=int, metavar="N", default=10, help="how many mistakes to list; default: 10")
    add("--show", action="store_true", help="open the figures; needs --figures")
    return p


class Predictions(NamedTuple):
    """What a model predicts for images (N, H, W). `labels` is None if they are unknown."""

    names: np.ndarray
    images: np.ndarray
    labels: np.ndarray | None
    predicted: np.ndarray
    confidence: np.ndarray
    disputed: np.ndarray  # True where people dispute the label

    def describe(self, n):
        mark = "?" if self.disputed[n] else ""
        truth = "" if self.labels is None else f"; it is {self.labels[n]}{mark}"
        return f"{self.names[n]}: {self.predicted[n]} with probability {self.confidence[n]:.4f}{truth}"


def printable(text):
    """A file name, or a sentence with one, as text that can be written: a byte that is not UTF-8 becomes \\xff."""
    return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def select(arrays, some):
    return [array if array is None else array[some] for array in arrays]


def check_options(args):
    if sum(map(bool, (args.pictures, args.images, args.data))) > 1:
        raise ValueError("give only one of pictures, --images and --data")
    if args.labels and not args.images:
        raise ValueError("--labels needs --images")
    if args.pictures and args.index:
        raise ValueError("--index cannot be given with pictures; it selects among --images or the images of a data set")
    if args.output and not args.output.endswith((".npy", ".csv")):
        raise ValueError(f"--output must end in .npy or .csv, not {args.output}")
    if args.show and not args.figures:
        raise ValueError("--show needs --figures DIR")
    if args.mistakes < 0:
        raise ValueError(f"--mistakes must be 0 or more, not {args.mistakes}")


def read_pictures(args):
    """The pictures that can be read; args.pictures keeps their names. The others are named on stderr."""
    from tinymnist.datasets.pictures import read_picture  # needs pillow and scipy

    images, names = [], []
    for path in args.pictures:
        try:
            images.append(read_picture(path))
            names.append(path)
        except tm.DataError as error:
            print(printable(error), file=sys.stderr)
    args.unread = len(names) < len(args.pictures)
    if not names:
        sys.exit(2)
    args.pictures = names
    return np.stack(images)


def read_images(args, model, trained_on):
    """Names, images (N, H, W) and labels (N,), or None, of what is to be classified."""
    labels = None
    if args.pictures:
        images, source = read_pictures(args), "the pictures"
    elif args.images:
        images, source = map_file(args.images), f"the images in {args.images}"
        labels = tm.idx.read(args.labels) if args.labels else None
    else:
        (images, labels), source = load_test_split(args.data or trained_on), "the test images"
    images = check_images(model, images, source)
    if labels is not None:
        images, labels = check_split(model, tm.Split(images, labels), args.labels or "the test data")
    names = list(map(printable, args.pictures)) or np.array([f"image {n}" for n in range(len(images))])
    if args.index:
        if min(args.index) < 0 or max(args.index) >= len(images):
            raise ValueError(f"--index must be from 0 to {len(images) - 1}, not {' '.join(map(str, args.index))}")
        names, images, labels = select((names, images, labels), args.index)
    return names, images, labels


def write_probabilities(path, probabilities, names=None):
    """A row for each image, with the names in the first column if they are given.

    9 digits, as in the .csv file, represent every float32 exactly.
    """
    with replace_file(path) as stream:
        if path.endswith(".npy"):
            np.save(stream, probabilities)
            return
        header, rows = [*range(probabilities.shape[1])], np.char.mod("%.9g", probabilities).tolist()
        if names is not None:
            header, rows = ["picture", *header], [[name, *row] for name, row in zip(names, rows)]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        stream.write(text.getvalue().encode())


def print_evaluation(found, matrix, mistakes, shown):
    """The accuracy, the confusion matrix with the recall of each digit, and the most confident mistakes."""
    correct, count = np.trace(matrix), matrix.sum()
    print(f"accuracy {correct / count:.4f}: {correct:,} of {count:,} predictions are correct\n")
    print("true    predicted" + " " * 47 + "recall")
    print("digit " + "".join(f"{k:6}" for k in range(len(matrix))))
    for digit, row in enumerate(matrix):
        recall = f"{row[digit] / row.sum():.4f}" if row.sum() else "–"
        print(f"{digit:5} " + "".join(f"{n or '·':>6}" for n in row.tolist()) + f"{recall:>10}")
    if len(mistakes) and shown:
        print(f"\nthe most confident of {len(mistakes):,} mistakes{count_disputed(found, mistakes)}")
        print(*map(found.describe, mistakes[:shown]), sep="\n")


def count_disputed(found, mistakes):
    """How many mistakes have disputed labels, for a title; nothing if none has"""
    n = found.disputed[mistakes].sum()
    return f"; {n} have one of MNIST's {found.disputed.sum()} disputed labels, marked by ?" if n else ""


def draw(directory, model, found, matrix, mistakes, pictures):
    """Draw the figures. `pictures` are the files of the images, or empty. Returns the figures' paths."""
    directory.mkdir(parents=True, exist_ok=True)

    def draw_some(some, title, name):
        return figures.draw_predictions(*select(found[1:], some), title, directory / name)

    if pictures:
        from tinymnist.datasets.pictures import lay_on, open_picture

        originals = [lay_on(open_picture(path), "white") for path in pictures[:SHOWN]]
        found = found._replace(images=figures.put_side_by_side(originals, found.images))
    title = "predicted digit and its probability" + ("; right: what the network sees" if pictures else "")
    title += "" if found.labels is None else "; mistakes are red"
    paths = [draw_some(slice(SHOWN), title, "predictions.png")]
    if matrix is not None:
        paths.append(figures.draw_confusion(matrix, directory / "confusion.png"))
        if len(mistakes):
            title = f"the {len(mistakes[:SHOWN])} most confident of {len(mistakes):,} mistakes"
            title += count_disputed(found, mistakes)
            paths.append(draw_some(mistakes[:SHOWN], title, "mistakes.png"))
    return [*paths, figures.draw_first_layer(model, directory / "first-layer.png")]


def predict(args):
    check_options(args)
    model, _, state = checkpoint.load(args.run)
    names, images, labels = read_images(args, model, state["where"])
    probabilities = tm.predict(model, images)
    classes = probabilities.shape[1]
    disputed = np.zeros(len(images), bool) if labels is None else is_disputed(labels)
    found = Predictions(names, images, labels, probabilities.argmax(1), probabilities.max(1), disputed)
    matrix = mistakes = None
    if labels is not None and not args.index:
        matrix = confusion_matrix(labels, found.predicted, classes)
        mistakes = find_mistakes(labels, found.predicted, found.confidence)
    if args.output:
        write_probabilities(args.output, probabilities, names if args.pictures else None)
    if args.figures:
        paths = draw(Path(args.figures), model, found, matrix, mistakes, args.pictures)
    # All files are written now, so that none of them is lost if standard output cannot be written.
    if args.pictures or args.index:
        print(*map(found.describe, range(len(images))), sep="\n")
    elif matrix is not None:
        print_evaluation(found, matrix, mistakes, args.mistakes)
    else:
        counts = np.bincount(found.predicted, minlength=classes)
        print(f"{len(images):,} images, by predicted digit: {', '.join(f'{k}: {n:,}' for k, n in enumerate(counts))}")
    if args.output:
        print(f"probabilities, {probabilities.shape}, in {printable(args.output)}")
    if args.figures:
        print(f"\nfigures in {printable(args.figures)}: {', '.join(path.name for path in paths)}")
        for path in paths if args.show else ():
            figures.open_figure(path)
    return 2 if args.pictures and args.unread else 0


def main(argv=None):
    return cli.run(lambda _: predict(make_parser().parse_args(argv)))


if __name__ == "__main__":
    cli.start(main)
