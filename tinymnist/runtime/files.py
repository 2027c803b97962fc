"""Directories to save into: made, locked, written to disk and removed."""

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
    """Make `directory` and lock it against all other callers, until the block or the process ends.

    Yields a function, to be called before each write: it raises DataError if another directory has that path now.
    Raises DataError if no file can be written there, or it is locked already.
    """
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):  # fails now rather than after an epoch
            pass
        handle = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{directory}: nothing can be saved there: {error.strerror or error}") from error

    def check():
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(directory), os.fstat(handle)):
                return
        raise DataError(f"{directory}: was moved, removed or replaced during the run; nothing more is saved")

    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{directory}: another run is being saved there at this moment") from error
        except OSError:  # the file system has no locks
            pass
        yield check
    finally:
        os.close(handle)


def new_run_directory(path: str | os.PathLike) -> Path:
    """Make the directory path-YYYYMMDD-HHMMSS. If it exists already, add -2, -3, … Raises DataError if this fails."""
    first = f"{path}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        Path(first).parent.mkdir(parents=True, exist_ok=True)
        for name in itertools.chain([first], (f"{first}-{number}" for number in itertools.count(2))):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name)
                return Path(name)
    except OSError as error:
        raise DataError(f"{first}: nothing can be saved there: {error.strerror or error}") from error


def sync(path: str | os.PathLike):
    """Write a file's content, or the names in a directory, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # the file system cannot sync directories
            raise
    finally:
        os.close(handle)


def discard(path: Path):
    """Remove a file, a directory or a link, if possible. It is renamed first, so that nobody finds half of it."""
    with contextlib.suppress(OSError):
        if not path.name.endswith(".part"):
            path = path.rename(path.with_name(f".{path.name}.part"))
        path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)
