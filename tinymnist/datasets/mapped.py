"""Data that stays on disk or in host memory: files larger than memory, and images that are altered in every epoch."""

from __future__ import annotations

import itertools
import math
import mmap
import os

import numpy as np

from tinymnist import idx
from tinymnist.batches import Batches
from tinymnist.idx import DataError

COUNTED = 4 << 20  # pixels counted at once by pixel_statistics
WHOLE = 256 << 20  # bytes of a mapped file up to which all of it is copied to the device


def map_file(path: str | os.PathLike) -> np.ndarray:
    """The array in an IDX file: mapped, read-only and big-endian, or read whole if the file is compressed.

    Raises DataError as idx.read does.
    """
    with idx.report_errors(path), open(path, "rb") as stream:
        if stream.read(2) != idx.GZIP:
            stream.seek(0)
            shape, dtype = idx.read_header(stream)
            begin, size = stream.tell(), math.prod(shape) * dtype.itemsize
            idx.check_length(os.fstat(stream.fileno()).st_size - begin, size)
            if size:
                return np.memmap(stream, dtype, "r", begin, shape)
    return idx.read(path)


def release_pages(array):
    """Give back the memory that pages of a mapped file take in this process. Other arrays are left alone."""
    mapping = getattr(array, "_mmap", None)
    if mapping is not None:
        mapping.madvise(mmap.MADV_DONTNEED)


def read_rows(array, rows):
    """array[rows] for whole numbers. Rows of a mapped file are read from the file, not through the mapping.

    One access through the mapping can load 2 MiB. Raises DataError if the file is gone or has become shorter.
    """
    if not isinstance(array, np.memmap):
        return array[rows]
    begin = array.ctypes.data - np.frombuffer(array._mmap, np.uint8).ctypes.data
    begin += array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    size, step = array[:1].nbytes, array.strides[0]
    try:
        with open(array.filename, "rb", buffering=0) as stream:
            read = bytearray().join(os.pread(stream.fileno(), size, begin + step * row) for row in rows.tolist())
    except OSError as error:
        raise DataError(f"{array.filename}: can no longer be read: {error.strerror or error}") from error
    if len(read) < size * len(rows):
        raise DataError(f"{array.filename}: has become shorter than it was")
    return np.frombuffer(read, array.dtype).reshape(len(rows), *array.shape[1:])


def pixel_statistics(images):
    """Mean and standard deviation of pixels scaled to [0, 1], from a count of each byte; MNIST: 0.1307, 0.3081."""
    counts, values, some = 0, np.arange(256) / 255, 1 + COUNTED // images[0].size
    for begin in range(0, len(images), some):
        counts = counts + np.bincount(images[begin : begin + some].ravel(), minlength=256)
        release_pages(images)
    mean = (values * counts).sum() / images.size
    return float(mean), float(np.sqrt(((values - mean) ** 2 * counts).sum() / images.size))


def make_batches(split, batch_size, device, alter=None):
    """The Batches that suit a Split: on the device, or on the host if it is a large mapped file or to be altered."""
    large = isinstance(split.images, np.memmap) and split.images.nbytes > WHOLE
    return HostBatches(split, batch_size, device, alter) if alter or large else Batches(split, batch_size, device)


class HostBatches(Batches):
    """Batches whose images stay on the host, or on disk, and go to the device one batch at a time.

    `alter(images, rng)`, if given, changes the images (n, H, W) of each batch; `rng` is numpy's, seeded per batch.
    """

    def __init__(self, split, batch_size, device, alter=None):
        super().__init__(split, batch_size, device)
        self.alter = alter

    def place(self, split):
        return split

    def gather(self, parts, seeds=None):
        for part, seed in zip(parts, seeds or itertools.repeat(None)):
            if not len(part):
                yield None
                continue
            images = read_rows(self.images, part)
            if self.alter is not None:
                images = self.alter(images, np.random.default_rng(seed))
            yield self.to_device(images[:, None]), self.to_device(np.asarray(self.labels[part]))
