"""Where data comes from: a directory, a download, or the digits that are embedded here; and what is asked of it."""

from __future__ import annotations

import os
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymnist.batches import Split
from tinymnist.datasets import download
from tinymnist.datasets.mapped import map_file, release_pages
from tinymnist.idx import DataError

CLASSES = 10


class Data(NamedTuple):
    """A data set, with a sentence that says which it is and where it was found."""

    train: Split
    test: Split
    name: str
    source: str

    @property
    def fingerprint(self) -> str:
        """CRC-32 over shapes, labels and pixels, so that a run goes on with the data it began with.

        Of more than 64 MB of images only every k-th is looked at, so that a mapped file is not read whole.
        """
        crc = 0
        for images, labels in (self.train, self.test):
            crc = zlib.crc32(np.ascontiguousarray(labels), zlib.crc32(str(images.shape).encode(), crc))
            some = images[:: 1 + images.nbytes // (64 << 20)]
            for begin in range(0, len(some), 1024):
                crc = zlib.crc32(np.ascontiguousarray(some[begin : begin + 1024]), crc)
                release_pages(images)
        return f"{crc:08x}"


def load(name_or_directory: str | os.PathLike | None = None) -> Data:
    """The data set "mnist", "fashion-mnist" or "digits", or a directory with MNIST's four files, .gz or not.

    By default $TINYMNIST_DATA says which; without it MNIST, from Gluon's cache or downloaded into it; and where that
    cannot be had, the embedded digits, with a line on stderr. What was asked for and cannot be had raises DataError.
    """
    where = name_or_directory or os.environ.get("TINYMNIST_DATA")
    if where:
        return _load(os.fspath(where))
    try:
        return _load("mnist")
    except DataError as error:
        print(
            f"Going on with the embedded digits, which are not MNIST: {error}. To get MNIST, go online once, or put "
            f"its four files into {download.cache('mnist')} or a directory that $TINYMNIST_DATA names.",
            file=sys.stderr,
        )
        return _load("digits")


def _load(where):
    if where == "digits":
        directory, title = str(Path(__file__).with_name("digits")), "the embedded UCI digits"
    elif where in download.SHA256:
        directory, title = download.fetch(where), {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}[where]
    elif os.path.isdir(where):
        directory, title = where, "IDX files"
    else:
        names = ", ".join(("digits", *download.SHA256))
        raise DataError(f"{where}: is no directory, and none of the data sets {names}")
    with ThreadPoolExecutor() as pool:  # both at once: isal lets go of the interpreter while it unfolds
        train, test = pool.map(partial(_split, directory), ("train", "t10k"))
    (n, *size), (m, *other) = train.images.shape, test.images.shape
    if size != other:
        raise DataError(
            f"{directory}: training images are {size} pixels large, test images {other}; they must be alike"
        )
    source = f"{title}: {n:,} training and {m:,} test images of {size[0]}x{size[1]} from {directory}"
    return Data(train, test, where, source)


def _split(directory, prefix):
    """One of the two parts. Pixels must be bytes: to scale or round others is for whoever knows what they mean."""
    (image_file, images), (label_file, labels) = (
        _array(directory, f"{prefix}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")
    )
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise DataError(f"{image_file}: holds NaN or infinite pixels; they must be bytes from 0 to 255")
    if images.dtype != np.uint8:
        raise DataError(f"{image_file}: its pixels are {images.dtype.name}; they must be bytes from 0 to 255, uint8")
    if images.ndim != 3 or images.size == 0:
        raise DataError(f"{image_file}: has the shape {images.shape}; expected (examples, height, width), none 0")
    if labels.shape != images.shape[:1]:
        found = f"{len(images):,} images but labels of the shape {labels.shape}"
        raise DataError(f"{label_file}: {found}; every image of {os.path.basename(image_file)} needs one label")
    wrong = ~((labels >= 0) & (labels < CLASSES) & (labels == np.floor(labels)))  # so NaN is wrong too
    if wrong.any():
        at = int(wrong.argmax())
        raise DataError(f"{label_file}: label {at:,} is {labels[at]}; labels are whole numbers from 0 to {CLASSES - 1}")
    return Split(images, np.array(labels, np.uint8))


def _array(directory, name):
    """A file's path and array. The plain one comes first and is mapped, so that it may be larger than memory."""
    for file in (os.path.join(directory, name), os.path.join(directory, f"{name}.gz")):
        if os.path.lexists(file):
            return file, map_file(file)
    raise DataError(f"{directory}: there is neither {name} nor {name}.gz")
