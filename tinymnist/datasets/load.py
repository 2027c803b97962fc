"""tm.load: a data set from a directory, from a download, or the digits that come with the package."""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymnist.batches import Split
from tinymnist.datasets import download
from tinymnist.datasets.mapped import map_file, release_pages
from tinymnist.idx import DataError

CLASSES = 10


class Data(NamedTuple):
    """A data set. `source` is a sentence that says what it is and where it was found."""

    train: Split
    test: Split
    name: str
    source: str

    def __repr__(self):
        return f"Data({self.name}: {describe_sizes(self.train, self.test)})"

    @property
    def fingerprint(self) -> str:
        """CRC-32 of shapes, labels and pixels. A resumed run compares it with that of the data it began with.

        Of more than 64 MB of images, it covers only every k-th one, so that a large file is not read completely.
        """
        crc = 0
        for images, labels in (self.train, self.test):
            crc = zlib.crc32(np.ascontiguousarray(labels), zlib.crc32(str(images.shape).encode(), crc))
            sample = images[:: 1 + images.nbytes // (64 << 20)]
            for begin in range(0, len(sample), 1024):
                crc = zlib.crc32(np.ascontiguousarray(sample[begin : begin + 1024]), crc)
                release_pages(images)
        return f"{crc:08x}"


def load(name_or_directory: str | os.PathLike | None = None) -> Data:
    """Load "mnist", "fashion-mnist", "digits", or the four files of MNIST's format, .gz or not, in a directory.

    Without an argument, $TINYMNIST_DATA says what to load. If it is not set, MNIST is loaded, or, if MNIST is not
    available, the embedded digits, with a warning on stderr. Raises DataError if the requested data is not available.
    """
    requested = name_or_directory or os.environ.get("TINYMNIST_DATA")
    if requested:
        return load_data_set(os.fspath(requested))
    try:
        return load_data_set("mnist")
    except DataError as error:
        places = f"{download.cache_directory('mnist')} or a directory that $TINYMNIST_DATA names"
        print(
            f"MNIST is not available ({error}). Using the embedded digits, which are not MNIST. "
            f"To get MNIST, go online once, or put its four files into {places}.",
            file=sys.stderr,
        )
        return load_data_set("digits")


def load_data_set(name):
    if name == "digits":
        directory, title = Path(__file__).with_name("digits"), "the embedded UCI digits"
    elif name in download.SHA256:
        directory, title = download.fetch(name), {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}[name]
    elif os.path.isdir(name):
        directory, title = name, "IDX files"
    else:
        names = ", ".join(("digits", *download.SHA256))
        raise DataError(f"{name}: is not a directory, and not one of the data sets {names}")
    train, test = read_split(directory, "train"), read_split(directory, "t10k")
    if train.images.shape[1:] != test.images.shape[1:]:
        sizes = f"training images have the size {train.images.shape[1:]}, test images {test.images.shape[1:]}"
        raise DataError(f"{directory}: {sizes}; they must be equal")
    return Data(train, test, name, f"{title}: {describe_sizes(train, test)} from {directory}")


def describe_sizes(train, test):
    (n, height, width), m = train.images.shape, len(test.images)
    return f"{n:,} training and {m:,} test images of {height}x{width}"


def read_split(directory, prefix):
    """The training or the test examples. Pixels must be bytes: other types would have to be scaled or rounded."""
    image_file = find_file(directory, f"{prefix}-images-idx3-ubyte")
    label_file = find_file(directory, f"{prefix}-labels-idx1-ubyte")
    images, labels = map_file(image_file), map_file(label_file)
    if images.dtype != np.uint8:
        raise DataError(f"{image_file}: pixels are {images.dtype.name}; they must be bytes from 0 to 255, uint8")
    if images.ndim != 3 or images.size == 0:
        raise DataError(f"{image_file}: has the shape {images.shape}; expected (examples, height, width) without a 0")
    if labels.shape != images.shape[:1]:
        raise DataError(f"{label_file}: {len(images):,} images but labels of the shape {labels.shape}; they must match")
    wrong = ~((labels >= 0) & (labels < CLASSES) & (labels == np.floor(labels)))  # true for NaN
    if wrong.any():
        i = int(wrong.argmax())
        raise DataError(f"{label_file}: label {i:,} is {labels[i]}; labels are whole numbers from 0 to {CLASSES - 1}")
    return Split(images, np.array(labels, np.uint8))


def find_file(directory, name):
    """The path of a file. The uncompressed one comes first, because it can be mapped and so be larger than memory."""
    for path in (os.path.join(directory, name), os.path.join(directory, f"{name}.gz")):
        if os.path.lexists(path):
            return path
    raise DataError(f"{directory}: there is neither {name} nor {name}.gz")
