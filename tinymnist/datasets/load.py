"""tm.load: a data set from files, from a download, or the digits that come with the package."""

from __future__ import annotations

import os
import re
import sys
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymnist.batches import Split
from tinymnist.datasets import download
from tinymnist.datasets.mapped import map_file, release_pages
from tinymnist.datasets.published import SHA256
from tinymnist.idx import DataError


class Data(NamedTuple):
    """A data set. `source` is a sentence that says what it is and where it was found."""

    train: Split
    test: Split
    name: str
    source: str

    def __repr__(self):
        return f"Data({self.name}: {describe_sizes(self.train, self.test)})"

    @property
    def classes(self) -> int:
        """How many classes a model needs: ten, or more if there are larger labels."""
        return max(10, *(int(split.labels.max()) + 1 for split in (self.train, self.test)))

    @property
    def fingerprint(self) -> str:
        """CRC-32 of shapes, labels and pixels. A resumed run compares it with that of the data it began with.

        It covers at most 64 MiB of each split's images, so that a large file is not read completely.
        """
        crc = 0
        for images, labels in (self.train, self.test):
            crc = zlib.crc32(np.ascontiguousarray(labels), zlib.crc32(str(images.shape).encode(), crc))
            sample = images[:: 1 + images.nbytes // (64 << 20)]
            for begin in range(0, len(sample), 1024):
                crc = zlib.crc32(np.ascontiguousarray(sample[begin : begin + 1024]), crc)
                release_pages(images)
        return f"{crc:08x}"


def load(name_or_path: str | os.PathLike | None = None) -> Data:
    """Load "mnist", "fashion-mnist", "digits", a directory with the four files of MNIST's format, or Keras's mnist.npz.

    The files may have the names that unpackers, torchvision, QMNIST or EMNIST give them. The arrays are read-only.
    Without an argument, $TINYMNIST_DATA says what to load. If it is not set, MNIST is loaded, or, if MNIST is not
    available, the embedded digits, with a warning on stderr. Raises DataError if the requested data is not available.
    """
    requested = name_or_path or os.environ.get("TINYMNIST_DATA")
    if requested:
        return load_data_set(os.path.expanduser(requested))
    try:
        return load_data_set("mnist")
    except DataError as error:
        print(f"{error}. Using the embedded digits, which are not MNIST.", file=sys.stderr)
        return load_data_set("digits")


def load_data_set(name):
    where, title, read = locate(name)
    train, test = read(where, "train"), read(where, "t10k")
    if train.images.shape[1:] != test.images.shape[1:]:
        sizes = f"training images have the size {train.images.shape[1:]}, test images {test.images.shape[1:]}"
        raise DataError(f"{where}: {sizes}; they must be equal")
    return Data(train, test, name, f"{title}: {describe_sizes(train, test)} from {where}")


def load_test_split(name):
    """Only the test examples; a directory need not have the training files."""
    where, _, read = locate(os.path.expanduser(name))
    return read(where, "t10k")


def locate(name):
    """Where a data set is, what it is, and the function that reads its training or test examples."""
    if name == "digits":
        return Path(__file__).with_name("digits"), "the embedded UCI digits", read_directory
    if name in SHA256:
        return download.fetch(name), {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}[name], read_directory
    if os.path.isdir(name):
        return name, "IDX files", read_directory
    if name.endswith(".npz") and os.path.exists(name):
        return name, "arrays", read_npz
    names = ", ".join(("digits", *SHA256))
    raise DataError(f"{name}: is not a directory, not an .npz file, and not one of the data sets {names}")


def describe_sizes(train, test):
    (n, height, width), m = train.images.shape, len(test.images)
    return f"{n:,} training and {m:,} test images of {height}x{width}"


def read_npz(path, part):
    """The training or the test examples in a file such as Keras's mnist.npz."""
    x, y = ("x_train", "y_train") if part == "train" else ("x_test", "y_test")
    errors = (OSError, KeyError, ValueError, EOFError, AttributeError, TypeError, RuntimeError, zlib.error)  # numpy's
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return make_split(arrays[x], arrays[y], f"{path}, {x}", f"{path}, {y}")
    except (*errors, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read: {error}; expected the arrays {x} and {y}") from error


def read_directory(directory, part):
    """The examples of a part in a directory: "train", or "t10k", MNIST's name for the test examples.

    EMNIST's images are transposed, and its letters begin at 1.
    """
    image_file, label_file = (find_file(directory, part, kind) for kind in ("images", "labels"))
    images, labels, name = map_file(image_file), map_file(label_file), os.path.basename(image_file).lower()
    if name.startswith("emnist") and images.ndim == 3:
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
        labels = labels - int(name.startswith("emnist-letters"))
    if name.startswith("qmnist") and labels.ndim == 2:
        labels = labels[:, 0]  # the other columns say who wrote the digit
    return make_split(images, labels, image_file, label_file)


def make_split(images, labels, image_name, label_name):
    """Check the arrays. Pixels must be bytes: other types would have to be scaled or rounded."""
    if images.dtype != np.uint8:
        raise DataError(f"{image_name}: pixels are {images.dtype.name}; they must be bytes from 0 to 255, uint8")
    if images.ndim != 3 or images.size == 0:
        raise DataError(f"{image_name}: has the shape {images.shape}; expected (examples, height, width) without a 0")
    if labels.dtype.kind not in "biuf":
        raise DataError(f"{label_name}: labels are {labels.dtype.name}; they must be whole numbers from 0 to 255")
    if labels.shape != images.shape[:1]:
        raise DataError(f"{label_name}: {len(images):,} images but labels of the shape {labels.shape}; they must match")
    wrong = ~((labels >= 0) & (labels <= 255) & (labels == np.floor(labels)))  # NaN is wrong, too
    if wrong.any():
        i = int(wrong.argmax())
        raise DataError(f"{label_name}: label {i:,} is {labels[i]}; labels are whole numbers from 0 to 255")
    labels = np.array(labels, np.uint8)
    images.flags.writeable = labels.flags.writeable = False  # so that a run need not copy them
    return Split(images, labels)


def find_file(directory, part, kind):
    """The path of the images or labels. An uncompressed file is preferred, as it can be mapped into memory."""
    parts = "(t10k|test)" if part == "t10k" else part
    pattern = re.compile(rf"(.*-)?{parts}-{kind}[-.]idx\d-(ubyte|int)(\.gz)?", re.IGNORECASE)
    for folder in ("", "raw", "MNIST/raw", "FashionMNIST/raw"):  # torchvision's folders
        found = {}  # by prefix: "", or one such as "emnist-letters-"
        for path in sorted(Path(directory, folder).glob("*"), key=lambda path: path.name.lower().endswith(".gz")):
            match = pattern.fullmatch(path.name)
            if match and not path.is_dir():
                found.setdefault((match[1] or "").lower(), str(path))
        if len(found) > 1 and "" not in found:
            raise DataError(f"{directory}: holds several data sets: {', '.join(found)}; each needs its own directory")
        if found:
            return found[min(found)]  # "" is the smallest
    names = sorted(os.listdir(directory))
    contents = f"it holds {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "it is empty"
    name = f"{part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
    raise DataError(f"{directory}: there is neither {name} nor {name}.gz; {contents}")
