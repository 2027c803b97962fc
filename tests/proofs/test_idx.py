"""The IDX format: what is written is read, Gluon reads the same, and every defect is one sentence."""

import functools
import gzip
import io
import os
import random
import struct
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tinymnist import idx
from tinymnist.backend import mx
from tinymnist.idx import DataError

compress = functools.partial(gzip.compress, mtime=0)  # the same bytes in every process that collects tests
DIGITS = os.path.join(os.path.dirname(idx.__file__), "datasets", "digits")
CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}
any_array = st.sampled_from(list(CODES)).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))
)


def encode(array):
    file = io.BytesIO()
    idx.write(file, array)
    return file.getvalue()


def header(*shape, code=8, dims=None):
    return bytes([0, 0, code, len(shape) if dims is None else dims]) + struct.pack(f">{len(shape)}I", *shape)


def read(content):
    return idx.read(io.BytesIO(content))


def equal(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()  # NaN equals NaN, -0 is not 0


BIG = 0xFFFFFFFF
GOOD = encode(np.arange(4, dtype="uint8").reshape(2, 2))
GZIP = compress(GOOD)
SHORT = "Compressed file ended before the end-of-stream marker was reached"


@given(any_array)
def test_reading_returns_what_was_written(array):
    content = encode(array)
    assert equal(read(content), array) and equal(read(compress(content)), array)
    assert read(content).flags.writeable


@pytest.mark.parametrize(
    "name, begin",
    [("plain", b"\0\0"), ("compressed.gz", b"\x1f\x8b\x08" + bytes(5)), ("upper.GZ", b"\x1f\x8b\x08" + bytes(5))],
)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3, 4), (1,) * 32])
def test_a_path_is_written_and_read(tmp_path, name, begin, shape):
    array = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    for path in (tmp_path / name, str(tmp_path / name)):
        idx.write(path, array)
        assert equal(idx.read(path), array)
    # A gzip header with neither a name nor a time: equal arrays make equal files.
    assert (tmp_path / name).read_bytes().startswith(begin)


def test_the_bytes_are_those_of_the_format():
    assert encode(np.array([[1, -2, 3]], "int16")) == bytes.fromhex("00000b02 00000001 00000003 0001 fffe 0003")
    assert encode(np.array(1.0, "float32")) == bytes.fromhex("00000d00 3f800000")
    assert {dtype: encode(np.zeros(1, dtype))[2] for dtype in CODES} == CODES
    assert encode(np.asfortranarray([[1, 2], [3, 4]], "uint8"))[-4:] == b"\1\2\3\4"
    assert encode(np.array([1], ">i4")) == encode(np.array([1], "<i4"))
    assert encode(bytearray(b"123")) == header(3) + b"123"


def test_sizes_fit_in_four_bytes():
    assert read(header(0, 1 << 31, BIG)).shape == (0, 1 << 31, BIG)
    assert encode(np.empty((0, BIG), np.uint8)) == header(0, BIG)
    with pytest.raises(ValueError, match="IDX cannot hold uint8"):
        encode(np.empty((0, BIG + 1), np.uint8))


def test_paths_and_open_files_of_every_kind_are_read(tmp_path):
    plain, packed = tmp_path / "plain.gz", tmp_path / "packed"  # the content matters, not the name
    plain.write_bytes(GOOD)
    packed.write_bytes(GZIP)
    later, only_read = io.BytesIO(b"before" + GOOD), types.SimpleNamespace(read=io.BytesIO(GZIP).read)
    later.seek(6)
    source, sink = os.pipe()
    os.write(sink, GOOD)
    os.close(sink)
    with open(packed, "rb", 0) as unbuffered, gzip.open(packed) as decompressing, open(source, "rb") as pipe:
        for file in (plain, packed, later, only_read, unbuffered, decompressing, pipe):
            assert equal(idx.read(file), read(GOOD))


@pytest.mark.parametrize("split", ["train", "t10k"])
@pytest.mark.parametrize("directory", [DIGITS, os.environ.get("TINYMNIST_DATA")], ids=["digits", "mnist"])
def test_gluons_reader_returns_the_same(directory, split, monkeypatch):
    if directory is None:
        pytest.skip("$TINYMNIST_DATA names no directory with MNIST")
    datasets = mx.gluon.data.vision.datasets
    monkeypatch.setattr(datasets, "download", lambda url, path, sha1_hash: os.path.join(path, os.path.basename(url)))
    gluon = datasets.MNIST(directory, train=split == "train")
    assert np.array_equal(idx.read(f"{directory}/{split}-images-idx3-ubyte.gz"), gluon._data.asnumpy()[..., 0])
    assert np.array_equal(idx.read(f"{directory}/{split}-labels-idx1-ubyte.gz"), gluon._label)


@pytest.mark.parametrize("padding", [b"", b"\0", bytes(70_000)])
def test_a_gzip_file_may_have_several_members(padding):
    data = random.Random(0).randbytes(1_100_000)  # more than is read at once
    content = header(len(data)) + data
    members = [compress(part) for part in (content[:3], content[3:70_000], b"", content[70_000:])]
    assert read(padding.join([*members, b""])).tobytes() == data
    with pytest.raises(DataError, match=SHORT):
        read(padding.join([*members, GZIP[:7]]))


STRANGE = [b"\0", b"\0\0\x08", b"\0\1" + GOOD[2:], b"\1\0" + GOOD[2:], b"PK\3\4" + GOOD, GZIP[:1]]
IMPOSSIBLE = [(BIG, BIG), (0, BIG, BIG, BIG), (1 << 30, 1 << 30), (1,) * 33]
DEFECTS = [
    (b"", "begins with no byte at all"),
    (compress(b""), "begins with no byte at all"),
    *((content, f"begins with {content[:4].hex(' ')}; ") for content in STRANGE),
    (header(2, 2, code=0x0A) + b"1234", "unknown type 0x0A; "),
    *((GOOD[:n], f"{n - 4} of 8 shape bytes are there; the file is cut short") for n in (4, 5, 8, 11)),
    *((GOOD[:n], f"{n - 12} of 4 data bytes are there; the file is cut short") for n in (12, 15)),
    (compress(GOOD[:-1]), "3 of 4 data bytes are there; the file is cut short"),
    (header(60000, 28, 28) + b"." * 1024, "1,024 of 47,040,000 data bytes are there; the file is cut short"),
    (header(3, code=0x0E) + b"." * 8, "8 of 24 data bytes are there; the file is cut short"),
    (header(1 << 30, (1 << 30) - 1, code=0x0E), "0 of 9,223,372,028,264,841,216 data bytes are there"),
    *((header(*shape, code=0x0E), f"impossible shape ({shape[0]}, {shape[1]}") for shape in IMPOSSIBLE),
    (header(0) + b"x", "trailing bytes follow the 0 data bytes"),
    *((content, "trailing bytes follow the 4 data bytes") for content in (GOOD + b"x", GZIP + GZIP)),
    (compress(header(300_000) + random.Random(0).randbytes(300_001)), "trailing bytes follow the 300,000 data"),
    *((GZIP[:n], SHORT) for n in (5, 20, -8, -1)),
    (GZIP[:-8] + b"\1" * 4 + GZIP[-4:], "CRC check failed"),
    (GZIP[:-4] + b"\1" * 4, "Incorrect length of data produced"),
    (GZIP + b"x", "Not a gzipped file"),
    (GZIP[:10] + b"\xff" * 20, "Error -3 while decompressing data"),
    (compress(header(1 << 30)), "cannot be trusted to contain 1,073,741,824 bytes"),
]


@pytest.mark.parametrize("content, sentence", DEFECTS)
def test_every_defect_is_one_sentence_that_begins_with_the_name(tmp_path, content, sentence):
    path = tmp_path / "images"
    path.write_bytes(content)
    with open(path, "rb") as file:
        for what, name in ((path, path), (file, path), (io.BytesIO(content), "the open file")):
            with pytest.raises(DataError) as error:
                idx.read(what)
            assert str(error.value).startswith(f"{name}: ") and sentence in str(error.value)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    def fail():
        raise MemoryError

    cases = [
        (tmp_path / "nowhere", "nowhere: .*No such file or directory$"),
        (tmp_path, f"^{tmp_path}: .*Is a directory$"),
        (types.SimpleNamespace(read=fail, name="large"), "^large: .*does not fit in memory$"),
    ]
    for file, sentence in cases:
        with pytest.raises(DataError, match=sentence):
            idx.read(file)


@pytest.mark.parametrize("size, sentence", [(1 << 30, "cannot be trusted to contain 1,"), (4, "trailing bytes follow")])
def test_a_small_gzip_file_takes_little_memory(size, sentence):
    bomb = compress(header(size)) + compress(bytes(1 << 20)) * 1024  # a gigabyte of zeros
    tracemalloc.start()
    with pytest.raises(DataError, match=sentence):
        read(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize("noise, limit", [(100_000, lambda n: 64 << 20), (1_100_000, lambda n: 64 * n)])
def test_what_a_gzip_file_may_contain_is_limited_to_the_byte(noise, limit):
    """The limit is 64 MiB, or 64 times the size of the file if that is more."""
    noise, size, content = os.urandom(noise), -1, b""
    while size != (size := limit(len(content))):  # a header that promises all that the compressed size allows
        content = compress(header(size) + noise)
    with pytest.raises(DataError, match=f"{len(noise):,} of {size:,} data bytes are there; the file is cut short"):
        read(content)
    with pytest.raises(DataError, match=f"^the open file: .* cannot be trusted to contain {size + 1:,} bytes"):
        read(compress(header(size + 1) + noise))


@pytest.mark.parametrize("break_at", ["write", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, break_at):
    def fail(*_):
        raise OSError(28, "No space left on device")

    class FullDisk(io.FileIO):
        write = fail

    if break_at == "write":
        monkeypatch.setattr("builtins.open", lambda path, mode: FullDisk(path, mode))
    else:
        monkeypatch.setattr(os, break_at, fail)
    path = tmp_path / "a"
    for old in ([], ["a"]):
        if old:
            path.write_bytes(GOOD)
        with pytest.raises(DataError, match=rf"{path}: cannot be written: No space left on device"):
            idx.write(path, np.arange(5, dtype="u1"))
        assert os.listdir(tmp_path) == old
    assert path.read_bytes() == GOOD


def test_a_file_is_complete_before_it_takes_its_name(tmp_path, monkeypatch):
    replaced = []
    monkeypatch.setattr(os, "replace", lambda part, final: replaced.append((Path(part).read_bytes(), final)))
    idx.write(tmp_path / "a", read(GOOD))
    assert replaced == [(GOOD, str(tmp_path / "a"))] and os.listdir(tmp_path) == []


def test_a_pipe_is_written_to_and_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    idx.write(tmp_path / "pipe", read(GOOD))
    assert os.read(pipe, 1000) == GOOD and (tmp_path / "pipe").is_fifo()
    os.close(pipe)


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    for path, reason in ((tmp_path / "no" / "where", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(DataError, match=f"{path}: cannot be written: {reason}"):
            idx.write(path, np.zeros(1, "u1"))
    for dtype in ("int64", "uint16", "float16", "bool", "U1"):
        with pytest.raises(ValueError, match="its types are uint8, int8, int16, int32, float32, float64"):
            idx.write(tmp_path / "x", np.zeros(1, dtype))
    assert os.listdir(tmp_path) == []


def random_file(rng):
    """A good file or a defect from above, often compressed, with a few bytes changed"""
    array = np.ones([rng.randrange(5) for _ in range(rng.randrange(5))], rng.choice(list(CODES)))
    content = rng.choice([encode(array), rng.choice(DEFECTS)[0]])
    content = bytearray(gzip.compress(content, 1) if rng.random() < 0.5 else content)
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        at = rng.randrange(len(content) + 1)
        content[at : at + rng.choice([0, 1, 1, 1, 4, 1000])] = rng.choice([b"", rng.randbytes(1), rng.randbytes(5)])
    return gzip.compress(content, 1) if rng.random() < 0.25 else bytes(content)


@pytest.mark.parametrize("count", [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_any_bytes_end_in_an_array_or_a_sentence_and_take_little_memory(count):
    rng, found, sentences = random.Random(count), 0, set()
    tracemalloc.start()
    for _ in range(count):
        try:
            found += isinstance(read(random_file(rng)), np.ndarray)
        except DataError as error:
            sentences.add(str(error))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert count / 20 < found < count / 2 and len(sentences) > 100  # both ends were reached
