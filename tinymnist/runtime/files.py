"""Files: the exception for bad ones; writing one so that it is there whole or not at all; directories that last."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import mmap
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np


class DataError(Exception):
    """Bad data: a sentence that names the file, what was found and what was expected."""


def release(array):
    """Gives back the memory that the pages of a mapped file take in this process; they come again when they are wanted.

    Does nothing to an array that is not a numpy.memmap.
    """
    mapped = getattr(array, "_mmap", None)
    if mapped is not None:
        mapped.madvise(mmap.MADV_DONTNEED)


def rows(array, which):
    """array[which], for whole numbers; of a numpy.memmap read from its file without touching the mapping.

    A look through the mapping can bring 2 MiB of the file into this process: 15 µs an image to have that and to release
    it, 3 µs to read the image so.   DataError: the file has become shorter, or is gone
    """
    if not isinstance(array, np.memmap):
        return array[which]
    begin = array.ctypes.data - np.frombuffer(array._mmap, np.uint8).ctypes.data
    begin += array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    size, step = array[:1].nbytes, array.strides[0]
    try:
        with open(array.filename, "rb", buffering=0) as stream:
            read = bytearray().join(os.pread(stream.fileno(), size, begin + step * i) for i in which.tolist())
    except OSError as error:
        raise DataError(f"{array.filename}: can no longer be read: {error.strerror or error}") from error
    if len(read) < size * len(which):
        raise DataError(f"{array.filename}: has become shorter than it was")
    return np.frombuffer(read, array.dtype).reshape(len(which), *array.shape[1:])


@contextlib.contextmanager
def replacing(path: str | os.PathLike):
    """An open file beside `path` that takes its name, synced, when the block ends well and vanishes when it does not.

    A disk that is full, or a directory that cannot be written, raises DataError and leaves the old file as it was.
    """
    final = os.path.realpath(path)
    beside = f"{final}.{os.getpid()}-{os.urandom(4).hex()}.part"
    try:
        if os.path.exists(final) and not os.path.isfile(final):  # a device or a pipe is written to, never replaced
            beside = final
        with open(beside, "wb") as stream:
            yield stream
            stream.flush()
            if beside != final:
                os.fsync(stream.fileno())
                os.replace(beside, final)
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot be written: {error.strerror or error}") from error
    finally:
        if beside != final:
            with contextlib.suppress(OSError):
                os.unlink(beside)


@contextlib.contextmanager
def locked(directory: str | os.PathLike):
    """A directory that can be written, made where it was not, for this block alone of all in any process that ask so.

    The lock ends with the process, however that ends.   DataError: it cannot be written, or somebody else has it
    """
    try:
        make(Path(directory))
        with tempfile.TemporaryFile(dir=directory):  # better to know now than when there is something to save
            handle = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{directory}: nothing can be saved there: {error.strerror or error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise DataError(f"{directory}: another run is being saved there at this moment") from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(handle)


def fresh(path: str | os.PathLike) -> Path:
    """Makes the directory path-YYYYMMDD-HHMMSS, or with -2, -3, … behind it: the first that was not there.

    DataError: it cannot be made
    """
    path = f"{path}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        make(Path(path).parent)
        for directory in itertools.chain([path], (f"{path}-{n}" for n in itertools.count(2))):
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory)
                return Path(directory)
    except OSError as error:
        raise DataError(f"{path}: nothing can be saved there: {error.strerror or error}") from error


def make(directory: Path):
    """Makes a directory, and those above it, so that they last."""
    if not directory.is_dir():
        make(directory.parent)
        directory.mkdir(exist_ok=True)
        sync(directory.parent)


def sync(path: str | os.PathLike):
    """Brings a file, or the names in a directory, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot sync a directory
            raise
    finally:
        os.close(handle)


def discard(path: Path):
    """Removes a file or a directory as far as that can be; a directory loses its name before its first file."""
    with contextlib.suppress(OSError):
        hidden = path if path.name.endswith(".part") else path.rename(path.with_name(f".{path.name}.part"))
        shutil.rmtree(hidden) if hidden.is_dir() else hidden.unlink()
