"""The IDX file format, in which MNIST is published.

    magic   0  0  type  D      one byte each; D is the number of dimensions
    shape   n_1 … n_D          four bytes each, unsigned
    data    n_1 · … · n_D      elements of that type; the last index varies fastest

All numbers are big-endian. MNIST's first file has the magic 00 00 08 03 (bytes, three dimensions), the shape
60000 28 28, and one byte for each pixel. The file may be compressed with gzip.
Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", section "The IDX file format".
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import os
import zlib
from pathlib import Path

import numpy as np

NAMES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}  # numpy's; > for big-endian
TYPES = {code: np.dtype(name) for code, name in NAMES.items()}
CODES = {dtype.name: code for code, dtype in TYPES.items()}  # "uint8": 8, …
GZIP = b"\x1f\x8b"  # the first two bytes of every gzip file, whatever its name


class DataError(Exception):
    """Bad data: a sentence that names the file, what was found and what was expected."""


def read(file: str | os.PathLike | io.IOBase) -> np.ndarray:
    """Return the array in `file`, a path or an open binary file, in the byte order of this computer.

    Raises DataError, with the file's name and the reason, if the file cannot be read or is not a complete IDX file.
    """
    with report_errors(file):
        content = file.read() if hasattr(file, "read") else Path(file).read_bytes()
        compressed = content.startswith(GZIP)
        stream = io.BytesIO(content)
        stream = gzip.GzipFile(fileobj=stream) if compressed else stream
        shape, dtype = read_header(stream)
        size = math.prod(shape) * dtype.itemsize
        if compressed and size > max(64 << 20, 64 * len(content)):  # a bomb? over 64 MiB and over 64 times the file
            raise DataError(f"{len(content):,} compressed bytes cannot be trusted to contain {size:,} bytes of data")
        array = np.frombuffer(read_data(stream, size), dtype).reshape(shape)
        return array.astype(dtype.newbyteorder("="), copy=False)  # "=": the byte order of this computer


def write(file: str | os.PathLike | io.IOBase, array: np.ndarray) -> None:
    """Write `array` to a path or an open binary file. A path that ends in .gz is compressed.

    A path's file appears only when it is complete: if writing fails, an old file stays as it was, and DataError is
    raised. Raises ValueError for an array that IDX cannot hold.
    """
    array = np.asarray(array)
    code = CODES.get(array.dtype.name)
    if code is None or any(n >= 1 << 32 for n in array.shape):
        raise ValueError(f"IDX cannot hold {array.dtype} {array.shape}; its types are {', '.join(CODES)}")
    header = bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.astype(TYPES[code]).tobytes()
    if hasattr(file, "write"):
        file.write(content)
        return
    if os.fspath(file).lower().endswith(".gz"):
        content = gzip.compress(content, mtime=0)  # without a time, equal arrays give equal files
    with replace_file(file) as stream:
        stream.write(content)


def read_header(stream):
    """The shape and the type of the array, from the beginning of the file."""
    magic = stream.read(4)
    if magic[:2] != b"\0\0" or len(magic) < 4:
        raise DataError(f"begins with {magic.hex(' ') or 'no byte at all'}; IDX files begin with 00 00, a type and D")
    if magic[2] not in TYPES:
        raise DataError(f"unknown type 0x{magic[2]:02X}; IDX has 0x08, 0x09, 0x0B, 0x0C, 0x0D and 0x0E")
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError(f"{len(sizes)} of {4 * magic[3]} shape bytes are there; the file is cut short")
    shape, dtype = tuple(np.frombuffer(sizes, ">u4").tolist()), TYPES[magic[2]]
    # The limits of numpy 1, for which a size of 0 counts as 1
    if len(shape) > 32 or math.prod(n or 1 for n in shape) * dtype.itemsize >= 1 << 63:
        raise DataError(f"impossible shape {shape}; at most 32 dimensions and less than 2^63 bytes can be read")
    return shape, dtype


def read_data(stream, size):
    """The `size` bytes that must remain in the stream, read in parts, so that a false size reserves no memory."""
    data = bytearray()
    while part := stream.read(min(1 << 20, size - len(data))):
        data += part
    # One byte more shows whether the file is too long, and lets gzip compare its checksum.
    check_length(len(data) + len(stream.read(1)), size)
    return data


def check_length(length, size):
    if length > size:
        raise DataError(f"trailing bytes follow the {size:,} data bytes that its shape asks for")
    if length < size:
        raise DataError(f"{length:,} of {size:,} data bytes are there; the file is cut short")


@contextlib.contextmanager
def report_errors(file):
    """Turn errors of reading in the block into a DataError that begins with the file's name."""
    name = getattr(file, "name", "the open file") if hasattr(file, "read") else os.fspath(file)
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except (EOFError, MemoryError, OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it does not fit in memory"
        raise DataError(f"{name}: cannot be read: {reason}") from error


@contextlib.contextmanager
def replace_file(path: str | os.PathLike):
    """An open file next to `path`. When the block succeeds, the file is synced to disk and renamed to `path`.

    If the block or the disk fails, the new file is removed and an old file stays as it was. Raises DataError for an
    error of the disk.
    """
    final = os.path.realpath(path)
    special = os.path.exists(final) and not os.path.isfile(final)  # a device or a pipe is written to, never replaced
    temporary = final if special else f"{final}.{os.urandom(6).hex()}.part"
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            if not special:
                os.fsync(stream.fileno())
                os.replace(temporary, final)
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot be written: {error.strerror or error}") from error
    finally:
        if not special:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # after os.replace it is gone already
