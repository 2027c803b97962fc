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


@given(any_array)
def test_reading_returns_what_was_written(array):
    content = encode(array)
    assert equal(read(content), array) and equal(read(compress(content)), array)
    assert read(content).flags.writeable


@pytest.mark.parametrize("name", ["plain", "compressed.gz"])
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4), (1,) * 32])
def test_a_path_is_written_and_read(tmp_path, name, dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    idx.write(tmp_path / name, array)
    assert equal(idx.read(tmp_path / name), array) and equal(idx.read(str(tmp_path / name)), array)
    assert (tmp_path / name).read_bytes()[:2] == (b"\x1f\x8b" if name.endswith(".gz") else b"\0\0")


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


def test_equal_arrays_make_equal_files(tmp_path):
    for name in ("a.gz", "b.gz"):
        idx.write(tmp_path / name, np.arange(100, dtype="i4"))
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert (tmp_path / "a.gz").read_bytes()[3:8] == bytes(5)  # neither a name nor a time in the gzip header


def test_gzip_is_recognized_by_content_and_not_by_name(tmp_path):
    (tmp_path / "plain.gz").write_bytes(GOOD)
    (tmp_path / "compressed").write_bytes(GZIP)
    for name in ("plain.gz", "compressed"):
        assert equal(idx.read(tmp_path / name), read(GOOD))


def test_open_files_of_every_kind_are_read(tmp_path):
    (tmp_path / "a").write_bytes(GZIP)
    for mode, buffering in (("rb", -1), ("rb", 0), ("a+b", -1)):
        with open(tmp_path / "a", mode, buffering) as file:
            file.seek(0)
            assert read(GOOD).tolist() == idx.read(file).tolist()
    source, sink = os.pipe()
    os.write(sink, GOOD)
    os.close(sink)
    later = io.BytesIO(b"before" + GOOD)
    later.seek(6)
    only_read = types.SimpleNamespace(read=io.BytesIO(GZIP).read)
    with gzip.open(tmp_path / "a") as decompressing, open(source, "rb") as pipe:
        for file in (decompressing, later, pipe, only_read):
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


GOOD = encode(np.arange(4, dtype="uint8").reshape(2, 2))
GZIP = compress(GOOD)
BIG = 0xFFFFFFFF
SHORT = "the gzip file is damaged: Compressed file ended before the end-of-stream marker was reached"


@pytest.mark.parametrize("padding", [b"", b"\0", bytes(70_000)])
def test_a_gzip_file_may_have_several_members(padding):
    content = b"".join(compress(part) + padding for part in (GOOD[:3], GOOD[3:9], b"", GOOD[9:]))
    assert equal(read(content), read(GOOD))
    with pytest.raises(DataError, match=SHORT):
        read(content + GZIP[:7])


def test_large_members_are_read():
    """They are larger than what is read at once, and repeat content from far before."""
    noise = np.random.default_rng(0).bytes(30_000)
    data = noise * 3 + np.random.default_rng(1).bytes(1_100_000) + noise
    content = header(len(data)) + data
    for parts in ((content,), (content[:10], content[10:70_000], content[70_000:])):
        assert read(b"".join(map(compress, parts))).tobytes() == data


STRANGE = (b"\0", b"\0\0\x08", b"\0\1" + GOOD[2:], b"\1\0" + GOOD[2:], b"PK\3\4" + GOOD, GZIP[:1])
IMPOSSIBLE = ((BIG, BIG), (0, BIG, BIG, BIG), (1 << 30, 1 << 30), (1,) * 33)


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b"", "begins with no byte at all"),
        (compress(b""), "begins with no byte at all"),
        *((content, f"begins with {content[:4].hex(' ')}; ") for content in STRANGE),
        (header(2, 2, code=0x0A) + b"1234", "unknown type 0x0A; "),
        (header(2, dims=2), "4 of 8 shape bytes are there; the file is cut short"),
        *((GOOD[:n], f"{n - 4} of 8 shape bytes are there; the file is cut short") for n in (4, 5, 11)),
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
        (GZIP[:3] + b"\x08" + GZIP[4:10] + b"n" * 700_000, SHORT),
        (GZIP[:-8] + b"\1" * 4 + GZIP[-4:], "the gzip file is damaged: CRC check failed"),
        (GZIP[:-4] + b"\1" * 4, "the gzip file is damaged: Incorrect length of data produced"),
        (GZIP + b"x", "the gzip file is damaged: Not a gzipped file"),
        (GZIP[:10] + b"\xff" * 20, "the gzip file is damaged: Error -3 while decompressing data"),
        (compress(header(1 << 30)), "cannot be trusted to contain 1,073,741,824 bytes"),
    ],
)
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

    (tmp_path / "mine").touch(mode=0o000)
    cases = [
        (tmp_path / "nowhere", "nowhere: cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
        (types.SimpleNamespace(read=fail, name="large"), "^large: does not fit in memory$"),
        (tmp_path / "mine", "mine: cannot be read: Permission denied"),
    ]
    for file, sentence in cases[: 3 if os.access(tmp_path / "mine", os.R_OK) else 4]:  # root may read everything
        with pytest.raises(DataError, match=sentence):
            idx.read(file)


@pytest.mark.parametrize(
    "size, mebibytes, sentence",
    [
        (63 << 20, 63, None),
        (65 << 20, 65, "cannot be trusted to contain 68,157,440 bytes"),
        (1 << 30, 1024, "cannot be trusted to contain 1,073,741,824 bytes"),
        (4, 1024, "trailing bytes follow the 4 data bytes"),
    ],
)
def test_a_small_gzip_file_takes_little_memory(size, mebibytes, sentence):
    """Zeros, compressed a thousandfold: up to 64 MiB are accepted; for more, no memory is taken."""
    bomb = io.BytesIO(compress(header(size)) + compress(bytes(1 << 20)) * mebibytes)
    tracemalloc.start()
    try:
        if sentence is None:
            assert idx.read(bomb).nbytes == size
        else:
            with pytest.raises(DataError, match=sentence):
                idx.read(bomb)
        assert tracemalloc.get_traced_memory()[1] < (10 if sentence else 100) << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "limit, noise",
    [(lambda stored: 64 << 20, 100_000), (lambda stored: 64 * stored, 1_100_000)],
    ids=["64 MiB", "64 times"],
)
def test_what_a_gzip_file_may_contain_is_limited_to_the_byte(limit, noise):
    noise, size, content = os.urandom(noise), -1, b""
    while size != (size := limit(len(content))):  # a header that promises all that the compressed size allows
        content = compress(header(size) + noise)
    with pytest.raises(DataError, match=f"{len(noise):,} of {size:,} data bytes are there; the file is cut short"):
        read(content)
    with pytest.raises(DataError, match=f"^the open file: .* cannot be trusted to contain {size + 1:,} bytes"):
        read(compress(header(size + 1) + noise))


@pytest.mark.parametrize("name", ["a", "a.gz"])
@pytest.mark.parametrize("break_at", ["write", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, name, break_at):
    def fail(*_):
        raise OSError(28, "No space left on device")

    class FullDisk(io.FileIO):
        write = fail

    path = tmp_path / name
    if break_at == "write":
        monkeypatch.setattr("builtins.open", lambda path, mode: FullDisk(path, mode))
    else:
        monkeypatch.setattr(os, break_at, fail)
    for old in ([], [name]):
        if old:
            path.write_bytes(GOOD)
        with pytest.raises(DataError, match=rf"{path}: cannot be written: No space left on device"):
            idx.write(path, np.arange(5, dtype="u1"))
        assert os.listdir(tmp_path) == old
    assert path.read_bytes() == GOOD


def test_a_file_is_complete_before_it_takes_its_name(tmp_path, monkeypatch):
    replaced = []
    monkeypatch.setattr(os, "replace", lambda beside, final: replaced.append((Path(beside).read_bytes(), final)))
    idx.write(tmp_path / "a", np.arange(4, dtype="uint8").reshape(2, 2))
    assert replaced == [(GOOD, str(tmp_path / "a"))] and os.listdir(tmp_path) == []


def test_a_pipe_is_written_to_and_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    idx.write(tmp_path / "pipe", np.arange(4, dtype="uint8").reshape(2, 2))
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


SIZES = [0, 1, 2, 3, 28, 255, 256, 60000, 1 << 20, 1 << 24, 1 << 30, 1 << 31, BIG]


def random_file(rng):
    """Half are good files, half have a header that is nearly right. Half are compressed; then bytes are changed."""
    if rng.random() < 0.5:
        content = encode(np.ones([rng.randrange(5) for _ in range(rng.randrange(5))], rng.choice(list(CODES))))
    else:
        dims = rng.choice([0, 1, 2, 3, 3, 4, 31, 32, 33, 255])
        shape = [rng.choice(SIZES) for _ in range(max(0, dims + rng.choice([0, 0, 0, -1])))]
        content = header(*shape, code=rng.choice([*CODES.values(), rng.randrange(256)]), dims=dims)
        content += bytes(rng.choice([0, 1, 28, 1024, rng.randrange(1 << 16)]))
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
