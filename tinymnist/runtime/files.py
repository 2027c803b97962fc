"""Files: the exception for bad ones; writing one so that it is there whole or not at all; directories that last."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import tempfile
import time
from pathlib import Path

from tinymnist.idx import DataError


@contextlib.contextmanager
def lock_directory(directory: str | os.PathLike):
    """A directory that can be written, made where it was not, for this block alone of all in any process that ask so.

    The lock ends with the process, however that ends.   DataError: it cannot be written, or somebody else has it
    """
    try:
        make_synced_directory(Path(directory))
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


def new_run_directory(path: str | os.PathLike) -> Path:
    """Makes the directory path-YYYYMMDD-HHMMSS, or with -2, -3, … behind it: the first that was not there.

    DataError: it cannot be made
    """
    path = f"{path}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        make_synced_directory(Path(path).parent)
        for directory in itertools.chain([path], (f"{path}-{n}" for n in itertools.count(2))):
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory)
                return Path(directory)
    except OSError as error:
        raise DataError(f"{path}: nothing can be saved there: {error.strerror or error}") from error


def make_synced_directory(directory: Path):
    """Makes a directory, and those above it, so that they last."""
    if not directory.is_dir():
        make_synced_directory(directory.parent)
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
