"""Images that stay on disk or in host memory: larger than memory, or altered anew in every epoch."""

from __future__ import annotations

import math
import mmap
import os

import numpy as np

from tinymnist import idx
from tinymnist.batches import Batches
from tinymnist.idx import DataError

COUNTED = 4 << 20  # pixels that pixel_statistics counts at once
LARGE = 256 << 20  # bytes: a mapped file up to this size goes to the device as a whole


def map_file(path: str | os.PathLike) -> np.ndarray:
    """The array in an IDX file, left on disk (mapped), read-only, big-endian. A compressed file is read by idx.read."""
    with idx.report_errors(path), open(path, "rb") as stream:
        if stream.read(2) != idx.GZIP:
            stream.seek(0)
            shape, dtype = idx.read_header(stream)
            begin, size = stream.tell(), math.prod(shape) * dtype.itemsize
            idx.check_length(os.fstat(stream.fileno()).st_size - begin, size)
            if size:  # an empty file cannot be mapped
                return np.memmap(stream, dtype, "r", begin, shape)
    return idx.read(path)


def release_pages(array):
    """Give back the memory that the pages of a mapped file use in this process. Other arrays stay as they are."""
    mapping = getattr(array, "_mmap", None)
    if mapping is not None:
        mapping.madvise(mmap.MADV_DONTNEED)


def read_rows(array, rows):
    """array[rows]. Only these rows of a mapped file are read; through the mapping, the system would read much more."""
    mapping = getattr(array, "_mmap", None)
    if mapping is None or not array[:1].flags.c_contiguous:
        return array[rows]
    whole = array.base if isinstance(array.base, np.memmap) else array  # numpy copies the attribute offset to slices
    begin = whole.offset + array.ctypes.data - whole.ctypes.data  # in the file
    size, step = array[:1].nbytes, array.strides[0]
    try:
        with open(array.filename, "rb", buffering=0) as stream:
            content = bytearray().join(os.pread(stream.fileno(), size, begin + step * row) for row in rows.tolist())
    except OSError as error:
        raise DataError(f"{array.filename}: can no longer be read: {error.strerror or error}") from error
    if len(content) < size * len(rows):
        raise DataError(f"{array.filename}: has become shorter since it was opened")
    return np.frombuffer(content, array.dtype).reshape(len(rows), *array.shape[1:])


def pixel_statistics(images):
    """The mean and standard deviation of pixels scaled to [0, 1], from a count of each byte. MNIST: 0.1307, 0.3081."""
    counts, values = 0, np.arange(256) / 255
    step = 1 + COUNTED // images[0].size
    for begin in range(0, len(images), step):
        counts = counts + np.bincount(images[begin : begin + step].ravel(), minlength=256)
        release_pages(images)
    mean = (values * counts).sum() / images.size
    return float(mean), float(np.sqrt(((values - mean) ** 2 * counts).sum() / images.size))


def make_batches(split, batch_size, device, alter=None):
    """Batches on the device, or HostBatches if the images are a large mapped file or `alter` is given."""
    large = isinstance(split.images, np.memmap) and split.images.nbytes > LARGE
    return HostBatches(split, batch_size, device, alter) if alter or large else Batches(split, batch_size, device)


class HostBatches(Batches):
    """Batches whose images stay on the host, or on disk, and go to the device one batch at a time.

    `alter(images, rng)`, if given, changes the images (n, H, W) of a batch. `rng` is numpy's, with the seed of `take`.
    """

    def __init__(self, split, batch_size, device, alter=None):
        self.batch_size, self.device, self.alter = batch_size, device, alter
        self.images, self.labels = split

    def take(self, indices, seed=0):
        """As in Batches; the seed is for `alter`."""
        images = read_rows(self.images, indices)
        if self.alter is not None:
            images = self.alter(images, np.random.default_rng(seed))
        return self.to_device(images[:, None]), self.to_device(np.asarray(self.labels[indices]))
