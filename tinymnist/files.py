"""Files: the exception for bad ones, and writing one so that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import os


class DataError(Exception):
    """Bad data: a sentence that names the file, what was found and what was expected."""


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
