"""Reads digits with a saved run: python scripts/predict.py runs/lenet seven.png, or the test set: … runs/lenet"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

import numpy as np

import tinymnist as tm
from tinymnist.backend import mx
from tinymnist.datasets.load import CLASSES
from tinymnist.datasets.pictures import read_picture
from tinymnist.experiments import figures as plot
from tinymnist.runtime.files import replacing
from tinymnist.runtime.metrics import check_size

SHOWN = 40  # images in a figure


def parser():
    p = argparse.ArgumentParser(
        description="Read digits with a saved run: pictures, an IDX file, or the test images of a data set."
    )
    p.add_argument("run", metavar="RUN", help="the directory of a run that scripts/train.py saved")
    p.add_argument("pictures", nargs="*", metavar="PICTURE", help="PNG or JPEG files, a digit each, of any size")
    p.add_argument("--images", metavar="FILE", help="an IDX file of images")
    p.add_argument("--labels", metavar="FILE", help="the IDX file of their labels, where there is one")
    p.add_argument("--data", metavar="NAME", help="as in scripts/train.py; default: what the run was trained on")
    p.add_argument("--index", type=int, nargs="+", metavar="N", help="only these of the images, counted from 0")
    p.add_argument("--output", metavar="FILE", help="write the class probabilities there, as .npy or .csv")
    p.add_argument(
        "--figures", metavar="DIR", help="draw the images, the mistakes, the confusion matrix and the first layer"
    )
    p.add_argument("--mistakes", type=int, metavar="N", default=10, help="list the N most confident ones; default: 10")
    p.add_argument("--show", action="store_true", help="open the figures")
    return p


def asked(args, where):
    """(names, images (N, H, W), labels (N,) or None) of what is to be read."""
    if sum(map(bool, (args.pictures, args.images, args.data))) > 1:
        raise ValueError("give pictures, or --images, or --data: one of the three")
    if args.labels and not args.images:
        raise ValueError("--labels belong to --images FILE")
    if args.pictures and args.index:
        raise ValueError("--index chooses among --images or the images of a data set; pictures are named one by one")
    if args.pictures:
        return args.pictures, np.stack([read_picture(path) for path in args.pictures]), None
    if args.images:
        images = tm.idx.read(args.images, mmap=True)
        if images.dtype != np.uint8 or images.ndim != 3 or not len(images):
            found = f"{images.dtype.name} of the shape {images.shape}"
            raise tm.DataError(f"{args.images}: holds {found}; images are bytes of the shape (N, height, width)")
        labels = read_labels(args.labels, len(images)) if args.labels else None
    else:
        images, labels = tm.load(args.data or where).test
    names = np.arange(len(images))
    if args.index:
        wrong = [n for n in args.index if not 0 <= n < len(images)]
        if wrong:
            raise ValueError(f"there is no image {wrong[0]}; there are {len(images):,}, counted from 0")
        names, images, labels = (part if part is None else part[args.index] for part in (names, images, labels))
    return [f"image {n}" for n in names.tolist()], images, labels


def read_labels(path, n):
    labels = tm.idx.read(path)
    if labels.shape != (n,):
        raise tm.DataError(f"{path}: holds labels of the shape {labels.shape}; the {n:,} images need ({n},)")
    if not np.isin(labels, range(CLASSES)).all():
        raise tm.DataError(
            f"{path}: holds {labels[~np.isin(labels, range(CLASSES))][0]}; labels are 0 to {CLASSES - 1}"
        )
    return labels.astype(np.uint8)


def write(path, probabilities):
    """Probabilities (N, K) as .npy, or as .csv with a line per image, in digits enough for every float32."""
    with replacing(path) as stream:
        if path.endswith(".npy"):
            np.save(stream, probabilities)
        else:
            header = ",".join(map(str, range(probabilities.shape[1])))
            np.savetxt(stream, probabilities, "%.9g", delimiter=",", header=header, comments="")


def confusion_matrix(labels, predicted, classes):
    """matrix[i, j]: how many of digit i were read as j.   -> (K, K)"""
    return np.bincount(labels.astype(int) * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def check(labels, predicted, sure):
    """-> the confusion matrix; where the mistakes are, the most confident first"""
    wrong = np.flatnonzero(predicted != labels)
    return confusion_matrix(labels, predicted, CLASSES), wrong[np.argsort(-sure[wrong], kind="stable")]


def report(matrix, wrong, labels, predicted, sure, names, count):
    """Accuracy, the confusion matrix with each digit's recall, and the most confident mistakes"""
    print(f"accuracy {np.trace(matrix) / len(labels):.4f}: {np.trace(matrix):,} of {len(labels):,} right\n")
    print("true    predicted" + " " * 47 + "recall")
    print("digit " + "".join(f"{k:6}" for k in range(CLASSES)))
    for digit, row in enumerate(matrix):
        recall = f"{row[digit] / row.sum():.4f}" if row.sum() else "–"
        print(f"{digit:5} " + "".join(f"{n or '·':>6}" for n in row.tolist()) + f"{recall:>10}")
    if len(wrong) and count:
        print(f"\nthe most confident of {len(wrong):,} mistakes")
        for at in wrong[:count]:
            print(f"{names[at]}: {predicted[at]} with probability {sure[at]:.4f}; it is {labels[at]}")


def draw(directory, model, images, labels, predicted, sure, checked):
    """-> the paths of the figures"""
    directory.mkdir(parents=True, exist_ok=True)

    def captions(some):
        for at in some:
            truth = "" if labels is None or predicted[at] == labels[at] else f", is {labels[at]}"
            yield f"{predicted[at]} ({100 * sure[at]:.1f} %){truth}"

    def grid(some, title, name):
        bad = [labels is not None and predicted[at] != labels[at] for at in some]
        return plot.grid(images[some], captions(some), bad, title, directory / name)

    some = np.arange(min(SHOWN, len(images)))
    title = "the digit read and its probability" + ("" if labels is None else "; red where it is another")
    made = [grid(some, title, "predictions.png")]
    if checked:
        matrix, wrong = checked
        right = f"{np.trace(matrix):,} of {len(labels):,} right"
        made.append(plot.confusion(matrix, f"what was read: {right}", directory / "confusion.png"))
        if len(wrong):
            some = wrong[:SHOWN]
            title = f"the {len(some)} most confident of {len(wrong)} mistakes"
            made.append(grid(some, title, "mistakes.png"))
    return [*made, plot.first_layer(model, directory / "first-layer.png")]


def predict(args):
    if args.output and not args.output.endswith((".npy", ".csv")):
        raise ValueError(f"--output {args.output}: probabilities are written as .npy or .csv")
    if args.show and not args.figures:
        raise ValueError("--show opens figures; say with --figures DIR where they go")
    if args.mistakes < 0:
        raise ValueError(f"--mistakes {args.mistakes}: how many are listed is a whole number from 0 on")
    model, _, content = tm.checkpoint.load(args.run)
    names, images, labels = asked(args, content["where"])
    check_size(model, images, args.images or ("the pictures" if args.pictures else "the images"))
    probabilities = tm.predict(model, images)
    predicted, sure = probabilities.argmax(1), probabilities.max(1)
    checked = None if labels is None or args.index else check(labels, predicted, sure)
    if args.output:
        write(args.output, probabilities)
    if args.figures:
        try:
            made = draw(Path(args.figures), model, images, labels, predicted, sure, checked)
        except OSError as error:
            raise tm.DataError(f"{args.figures}: cannot be drawn in: {error.strerror or error}") from error
    # All files are written by now: a terminal or a pipe that does not take what is printed costs none of them.
    if args.pictures or args.index:
        for n, name in enumerate(names):
            truth = "" if labels is None else f"; it is {labels[n]}"
            print(f"{name}: {predicted[n]} with probability {sure[n]:.4f}{truth}")
    elif checked:
        report(*checked, labels, predicted, sure, names, args.mistakes)
    else:
        print(
            f"{len(images):,} images read: " + ", ".join(f"{np.sum(predicted == k):,} of {k}" for k in range(CLASSES))
        )
    if args.output:
        print(f"probabilities, {probabilities.shape}, in {args.output}")
    if args.figures:
        print(f"\nfigures in {args.figures}: {', '.join(path.name for path in made)}")
        if args.show:
            for path in made:
                plot.show(path)


def main(argv=None):
    try:
        predict(parser().parse_args(argv))
        print(end="", flush=True)
        return 0
    except SystemExit as end:  # argparse has said why
        return end.code
    except KeyboardInterrupt:
        return failed(130, "stopped by Ctrl-C")
    except (tm.DataError, ValueError, ImportError) as error:
        return failed(2, error)
    except (MemoryError, mx.MXNetError) as error:
        return failed(1, str(error).strip().splitlines()[-1] if str(error) else "out of memory")
    except OSError as error:  # files have a DataError: it is what was printed that cannot be written
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would try once more at its end
        return failed(2, f"standard output cannot be written: {error.strerror or error}")


def failed(status, sentence):
    print(sentence, file=sys.stderr)
    return status


if __name__ == "__main__":
    if sys.stdout:  # there is none where it was closed
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no –
    sys.exit(main())
