"""The IDX file format, read and written whole.

    magic   0  0  type  D      one byte each; D is the number of dimensions
    shape   n_1 … n_D          four bytes each, unsigned
    data    n_1 · … · n_D      elements of that type, the last index running fastest

Everything is big-endian. A gzip around it is known by its content, not by its name.
Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", section "The IDX file format".
"""

from __future__ import annotations

import gzip
import io
import math
import os

import numpy as np
from isal import igzip, isal_zlib

from tinymnist.runtime.files import DataError, replacing

TYPES = {c: np.dtype(t) for c, t in {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}.items()}
CODES = {dtype.name: code for code, dtype in TYPES.items()}  # by int16 and the like, whatever the byte order
# What a .gz may unfold to. Deflate stops at 1032:1; beyond 64 MiB the file must also be at least a 64th of its data:
# MNIST's are a fifth, and so a small file never takes more than 64 MiB. Sparser data can be stored uncompressed.
DEFLATE, FREE, RATIO = 1032, 64 << 20, 64


def read(file: str | os.PathLike | io.IOBase, mmap: bool = False) -> np.ndarray:
    """The array in `file`, a path or an open binary file, in native byte order.

    mmap=True maps an uncompressed file at a path instead of reading it: read-only, and big-endian as it lies on disk.
    Every defect of the file raises DataError. Zero sizes are legal; no dimensions at all is a single element.
    """
    if hasattr(file, "read"):
        return _read(file, str(getattr(file, "name", "the open file")), False)
    try:
        with open(file, "rb") as stream:
            return _read(stream, os.fspath(file), mmap)
    except OSError as error:
        raise DataError(f"{os.fspath(file)}: cannot be read: {error.strerror or error}") from error


def _read(stream, name, mmap):
    try:
        stored = -stream.tell() + stream.seek(0, io.SEEK_END)
        stream.seek(-stored, io.SEEK_END)
    except (OSError, ValueError):  # a pipe, or a file object that cannot tell its size
        stored = None
    if stored is None or not hasattr(stream, "readinto"):  # which isal wants
        stream = io.BytesIO(stream.read())
        stored = len(stream.getbuffer())
    zipped = stream.read(2) == b"\x1f\x8b"
    stream.seek(-stored, io.SEEK_END)
    source = igzip.IGzipFile(fileobj=stream, mode="rb") if zipped else stream  # half the time of gzip
    size = filled = 0
    try:
        shape, dtype = _header(source, name)
        size = dtype.itemsize * math.prod(shape)
        if zipped and size > min(DEFLATE * stored, max(FREE, RATIO * stored)):
            raise DataError(f"{name}: {stored:,} compressed bytes cannot be trusted to unfold to the {size:,} promised")
        if not zipped:
            _compare(name, stored - 4 - 4 * len(shape), size)
            if mmap:
                return np.memmap(stream, dtype, "r", stream.tell(), shape)
        data = np.empty(size, np.uint8)
        while chunk := source.read(min(1 << 18, size - filled)):
            data[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
            filled += len(chunk)
        _compare(name, filled + len(source.read(1)), size)  # this last read also has the checksum compared
    except (EOFError, OverflowError, gzip.BadGzipFile, isal_zlib.error) as error:
        why = "is cut short, or something else follows it" if isinstance(error, EOFError) else f"is broken: {error}"
        raise DataError(f"{name}: the gzip around it {why}; {filled:,} data bytes could be read") from error
    except MemoryError as error:
        raise DataError(f"{name}: {size:,} data bytes do not fit in memory") from error
    array = data.view(dtype).reshape(shape)
    return array if dtype.isnative else array.byteswap(inplace=True).view(dtype.newbyteorder("="))


def _header(source, name):
    magic = source.read(4)
    if magic[:2] != b"\0\0" or len(magic) < 4:
        raise DataError(f"{name}: begins with {magic.hex(' ') or 'no byte at all'}; IDX files begin with 00 00, a type")
    if magic[2] not in TYPES:
        raise DataError(f"{name}: unknown type 0x{magic[2]:02X}; IDX has 0x08, 0x09, 0x0B, 0x0C, 0x0D and 0x0E")
    sizes = source.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError(f"{name}: {len(sizes)} of {4 * magic[3]} shape bytes are there; the file is cut short")
    shape, dtype = tuple(np.frombuffer(sizes, ">u4").tolist()), TYPES[magic[2]]
    if len(shape) > 32 or math.prod(n or 1 for n in shape) * dtype.itemsize >= 1 << 63:  # as numpy counts: zeros aside
        raise DataError(f"{name}: absurd dimensions {shape}; numpy takes at most 32, of less than 2^63 bytes")
    return shape, dtype


def _compare(name, found, size):
    if found != size:
        more = f"trailing bytes follow the {size:,} data bytes that its shape asks for"
        less = f"{found:,} of {size:,} data bytes are there; the file is cut short"
        raise DataError(f"{name}: {more if found > size else less}")


def write(file: str | os.PathLike | io.IOBase, array: np.ndarray) -> None:
    """Write `array` to a path or an open binary file; gzip it when the path ends in .gz.

    A path gets its name only when the whole file is on disk: a failed write leaves the old file as it was.
    """
    array = np.asarray(array)
    code = CODES.get(array.dtype.name)
    if code is None or any(n >= 1 << 32 for n in array.shape):
        raise ValueError(f"IDX cannot hold {array.dtype} {array.shape}; its types are {', '.join(CODES)}")
    if hasattr(file, "write"):
        file.write(bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes())
        file.write(np.ascontiguousarray(array, TYPES[code]).view(np.uint8).data if array.size else b"")
        return
    with replacing(file) as stream:
        if not os.fspath(file).endswith(".gz"):
            return write(stream, array)
        with gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as packed:  # equal arrays make equal files
            write(packed, array)
