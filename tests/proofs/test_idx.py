"""The IDX format: what is written is read, Gluon reads the same, and every defect is one sentence."""

import functools
import gzip
import io
import os
import struct
import tracemalloc
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tinymnist import idx
from tinymnist.backend import mx
from tinymnist.idx import DataError

zipped = functools.partial(gzip.compress, mtime=0)  # the same bytes in every process that collects tests
DIGITS = os.path.join(os.path.dirname(idx.__file__), "datasets", "digits")
TYPES = ["uint8", "int8", "int16", "int32", "float32", "float64"]
any_array = st.sampled_from(TYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))
)


def packed(array):
    file = io.BytesIO()
    idx.write(file, array)
    return file.getvalue()


def same(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()  # NaN equals NaN, -0 is not 0


@given(any_array)
def test_what_is_written_is_read(array):
    plain = packed(array)
    assert same(idx.read(io.BytesIO(plain)), array)
    assert same(idx.read(io.BytesIO(zipped(plain))), array)
    assert idx.read(io.BytesIO(plain)).flags.writeable


@pytest.mark.parametrize("name", ["plain", "packed.gz"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4), (1,) * 32])
def test_a_path_too_and_mapped(tmp_path, name, dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    idx.write(tmp_path / name, array)
    assert same(idx.read(tmp_path / name), array)
    assert same(np.array(idx.read(str(tmp_path / name), mmap=True), dtype), array)
    assert (tmp_path / name).read_bytes()[:2] == (b"\x1f\x8b" if name.endswith(".gz") else b"\0\0")


def test_the_bytes_are_those_of_the_format():
    assert packed(np.array([[1, -2, 3]], "int16")) == bytes.fromhex("00000b02 00000001 00000003 0001 fffe 0003")
    assert packed(np.array(1.0, "float32")) == bytes.fromhex("00000d00 3f800000")
    codes = [0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E]
    assert [packed(np.zeros(1, dtype))[2] for dtype in TYPES] == codes
    assert packed(np.asfortranarray([[1, 2], [3, 4]], "uint8"))[-4:] == b"\1\2\3\4"
    assert packed(np.array([1], ">i4")) == packed(np.array([1], "<i4"))


def test_gzip_is_known_by_content_and_not_by_name(tmp_path):
    (tmp_path / "plain.gz").write_bytes(packed(np.arange(3, dtype="u1")))
    (tmp_path / "zipped").write_bytes(zipped(packed(np.arange(3, dtype="u1"))))
    for name in ("plain.gz", "zipped"):
        assert idx.read(tmp_path / name, mmap=True).tolist() == [0, 1, 2]


def test_a_mapped_file_is_not_read(tmp_path):
    with open(tmp_path / "large", "wb") as file:
        file.write(struct.pack(">4BII", 0, 0, 8, 2, 1 << 20, 1 << 12))
        file.truncate(12 + (1 << 32))  # 4 GB of nothing on disk
    tracemalloc.start()
    array = idx.read(tmp_path / "large", mmap=True)
    assert array[-1, -1] == 0 and array.nbytes == 1 << 32 and not array.flags.writeable
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_open_files_pipes_and_files_without_a_size(tmp_path):
    array = np.arange(6, dtype="int16")
    idx.write(tmp_path / "a.gz", array)
    with open(tmp_path / "a.gz", "rb") as binary, open(tmp_path / "a.gz", "rb", buffering=0) as raw:
        assert same(idx.read(binary), array) and same(idx.read(raw), array)
    with gzip.open(tmp_path / "a.gz") as unzipping:
        assert same(idx.read(unzipping), array)
    with io.BytesIO(b"before" + packed(array)) as later:
        later.seek(6)
        assert same(idx.read(later), array)
    source, sink = os.pipe()
    os.write(sink, packed(array))
    os.close(sink)
    with open(source, "rb") as pipe:
        assert same(idx.read(pipe), array)


@pytest.mark.parametrize("split", ["train", "t10k"])
@pytest.mark.parametrize("directory", [DIGITS, os.environ.get("TINYMNIST_DATA")], ids=["digits", "mnist"])
def test_equal_to_gluons_reader(directory, split, monkeypatch):
    if directory is None:
        pytest.skip("$TINYMNIST_DATA names no directory with MNIST")
    datasets = mx.gluon.data.vision.datasets
    monkeypatch.setattr(datasets, "download", lambda url, path, sha1_hash: os.path.join(path, os.path.basename(url)))
    gluon = datasets.MNIST(directory, train=split == "train")
    assert np.array_equal(idx.read(f"{directory}/{split}-images-idx3-ubyte.gz"), gluon._data.asnumpy()[..., 0])
    assert np.array_equal(idx.read(f"{directory}/{split}-labels-idx1-ubyte.gz"), gluon._label)


GOOD = packed(np.arange(4, dtype="uint8").reshape(2, 2))
GZIP = zipped(GOOD)
BIG = 0xFFFFFFFF


@pytest.mark.parametrize("padding", [b"", b"\0", bytes(70_000)])
def test_a_gzip_of_several_members(padding):
    parts = [GOOD[:3], GOOD[3:9], b"", GOOD[9:]]
    whole = b"".join(zipped(part) + padding for part in parts)
    assert same(idx.read(io.BytesIO(whole)), idx.read(io.BytesIO(GOOD)))
    with pytest.raises(DataError, match="the gzip around it is cut short"):
        idx.read(io.BytesIO(whole + GZIP[:7]))


def test_an_open_file_is_called_by_its_name(tmp_path):
    (tmp_path / "mine").write_bytes(b"no IDX")
    with open(tmp_path / "mine", "rb") as file, pytest.raises(DataError, match=f"^{tmp_path}/mine: begins with"):
        idx.read(file)


def test_large_members():
    """of more than is read at once, with repetitions from far behind"""
    noise = np.random.default_rng(0).integers(0, 256, 30_000, np.uint8)
    array = np.tile(np.concatenate([noise, np.random.default_rng(1).integers(0, 256, 100_000, np.uint8), noise]), 2)
    plain = packed(np.concatenate([noise, noise, array]))
    for whole in (zipped(plain), zipped(plain[:10]) + zipped(plain[10:70_000]) + zipped(plain[70_000:])):
        assert same(idx.read(io.BytesIO(whole)), idx.read(io.BytesIO(plain)))


def test_zero_sizes_beside_large_ones():
    assert idx.read(io.BytesIO(header(0, 1 << 31, BIG))).shape == (0, 1 << 31, BIG)
    file = io.BytesIO()
    idx.write(file, np.empty((0, BIG), np.uint8))
    assert file.getvalue() == header(0, BIG)
    with pytest.raises(ValueError, match="IDX cannot hold uint8"):
        idx.write(file, np.empty((0, BIG + 1), np.uint8))


def test_what_numpy_takes_for_an_array_is_written():
    file = io.BytesIO()
    idx.write(file, bytearray(b"123"))
    assert file.getvalue() == header(3) + b"123"


def header(*shape, code=8, dims=None):
    return bytes([0, 0, code, len(shape) if dims is None else dims]) + struct.pack(f">{len(shape)}I", *shape)


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b"", "begins with no byte at all"),
        (b"\0", "begins with 00; "),
        (b"\0\0\x08", "begins with 00 00 08; "),
        (b"\0\1" + GOOD[2:], "begins with 00 01 08 02; "),
        (b"\1\0" + GOOD[2:], "begins with 01 00 08 02; "),
        (b"PK\3\4" + GOOD, "begins with 50 4b 03 04; "),
        (header(2, 2, code=0x0A) + b"1234", "unknown type 0x0A; "),
        (header(2, dims=2), "4 of 8 shape bytes are there; the file is cut short"),
        (GOOD[:4], "0 of 8 shape bytes are there; the file is cut short"),
        (GOOD[:11], "7 of 8 shape bytes are there; the file is cut short"),
        (GOOD[:-1], "3 of 4 data bytes are there; the file is cut short"),
        (GOOD[:12], "0 of 4 data bytes are there; the file is cut short"),
        (header(60000, 28, 28) + b"." * 1024, "1,024 of 47,040,000 data bytes are there; the file is cut short"),
        (header(3, code=0x0E) + b"." * 8, "8 of 24 data bytes are there; the file is cut short"),
        (GOOD + b"x", "trailing bytes follow the 4 data bytes"),
        (header(0) + b"x", "trailing bytes follow the 0 data bytes"),
        (header(BIG, BIG, code=0x0E), "absurd dimensions (4294967295, 4294967295)"),
        (header(0, BIG, BIG, BIG), "absurd dimensions (0, 4294967295"),
        (header(1 << 30, 1 << 30, code=0x0E), "absurd dimensions (1073741824, 1073741824)"),
        (header(1 << 30, (1 << 30) - 1, code=0x0E), "0 of 9,223,372,028,264,841,216 data bytes are there"),
        (header(*[1] * 33) + b".", "absurd dimensions (1, 1, 1"),
        (GZIP[:1], "begins with 1f; "),
        (GZIP[:5], "the gzip around it is cut short, or something else follows it; 0 data bytes could be read"),
        (GZIP[:20], "the gzip around it is cut short"),
        (GZIP[:-8], "the gzip around it is cut short"),
        (GZIP[:-1], "the gzip around it is cut short"),
        (GZIP[:-8] + b"\1" * 4 + GZIP[-4:], "the gzip around it is broken: CRC check failed"),
        (GZIP[:-4] + b"\1" * 4, "the gzip around it is broken: Incorrect length of data produced"),
        (GZIP + b"x", "or something else follows it; 0 data bytes could be read"),
        (GZIP + b"x" * 20, "the gzip around it is broken: Not a gzipped file"),
        (GZIP + GZIP, "trailing bytes follow the 4 data bytes"),
        (GZIP[:10] + b"\xff" * 20, "the gzip around it is broken: Error -1 Invalid deflate"),
        (GZIP[:3] + b"\x08" + GZIP[4:10] + b"n" * 700_000, "the gzip around it is broken: Gzip header"),
        (zipped(b""), "begins with no byte at all"),
        (zipped(GOOD[:-1]), "3 of 4 data bytes are there; the file is cut short"),
        (zipped(GOOD + b"x"), "trailing bytes follow the 4 data bytes"),
        (zipped(header(1 << 30)), "cannot be trusted to unfold to the 1,073,741,824 promised"),
        (zipped(header(1 << 20)), "cannot be trusted to unfold to the 1,048,576 promised"),
    ],
)
def test_every_defect_is_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "images"
    path.write_bytes(content)
    for mmap in (False, True):
        with pytest.raises(DataError) as error:
            idx.read(path, mmap=mmap)
        assert str(error.value).startswith(f"{path}: ") and sentence in str(error.value)
    with pytest.raises(DataError, match="the open file: "):
        idx.read(io.BytesIO(content))


def test_what_cannot_be_opened_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: cannot be read: No such file"):
        idx.read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"cannot be read: Is a directory"):
        idx.read(tmp_path)
    (tmp_path / "mine").touch(mode=0o000)
    if not os.access(tmp_path / "mine", os.R_OK):  # root may read everything
        with pytest.raises(DataError, match=r"mine: cannot be read: Permission denied"):
            idx.read(tmp_path / "mine")


@pytest.mark.parametrize("zeros, size", [(63 << 20, None), (65 << 20, "68,157,440"), (1 << 30, "1,073,741,824")])
def test_a_small_gzip_takes_little_memory(zeros, size):
    """Zeros, packed a hundredfold and more: 64 MiB are believed, more are not, and no memory is taken for them."""
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=1) as file:
        file.write(header(zeros))
        for _ in range(65 if size else 63):
            file.write(bytes(1 << 20))
    bomb.write(os.urandom(900_000 - bomb.tell()) if size else b"")  # just under 1 MB
    tracemalloc.start()
    if size is None:
        assert idx.read(io.BytesIO(bomb.getvalue())).nbytes == zeros
    else:
        with pytest.raises(DataError, match=f"cannot be trusted to unfold to the {size} promised"):
            idx.read(io.BytesIO(bomb.getvalue()))
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()


def test_a_large_gzip_may_unfold_to_64_times_its_size(monkeypatch):
    monkeypatch.setattr(idx, "FREE", 1 << 16)
    noise = os.urandom(4096)
    assert idx.read(io.BytesIO(zipped(header(240_000) + noise + bytes(240_000 - 4096)))).size == 240_000
    with pytest.raises(DataError, match="cannot be trusted to unfold to the 400,000 promised"):
        idx.read(io.BytesIO(zipped(header(400_000) + noise + bytes(400_000 - 4096))))


def promising(most, noise):
    """A gzip with so much noise in it, and a header that promises all of the `most` that its size allows"""
    noise, promised = os.urandom(noise), 0
    while promised != (promised := most(len(packed := zipped(header(promised) + noise)))):
        pass
    return io.BytesIO(packed), zipped(header(promised + 1) + noise), promised


@pytest.mark.parametrize(
    "most, noise",
    [(lambda stored: 1032 * stored, 64), (lambda stored: 64 << 20, 100_000), (lambda stored: 64 * stored, 1_100_000)],
    ids=["deflate", "free", "ratio"],
)
def test_what_a_gzip_may_unfold_to_is_believed_to_the_byte(most, noise):
    believed, refused, promised = promising(most, noise)
    with pytest.raises(DataError, match=f"{noise:,} of {promised:,} data bytes are there; the file is cut short"):
        idx.read(believed)
    with pytest.raises(
        DataError, match=f"^the open file: .* cannot be trusted to unfold to the {promised + 1:,} promised"
    ):
        idx.read(io.BytesIO(refused))


def test_an_open_file_is_read_whatever_else_may_be_done_with_it(tmp_path):
    with open(tmp_path / "a", "a+b") as stream:
        stream.write(GZIP)
        stream.seek(0)
        assert idx.read(stream).size == 4


def test_a_file_object_that_only_reads_and_seeks():
    whole = io.BytesIO(GZIP)
    stream = types.SimpleNamespace(read=whole.read, seek=whole.seek, tell=whole.tell)
    assert idx.read(stream).size == 4


def test_how_much_of_a_cut_gzip_could_be_read():
    packed = zipped(header(3 << 20) + os.urandom(3 << 20))
    with pytest.raises(DataError, match=r"something else follows it; [1-9],\d\d\d,\d\d\d data bytes could be read$"):
        idx.read(io.BytesIO(packed[: 2 << 20]))


def test_a_byte_too_many_is_found_behind_many():
    packed = zipped(header(300_000) + os.urandom(300_001))
    with pytest.raises(DataError, match="trailing bytes follow the 300,000 data bytes"):
        idx.read(io.BytesIO(packed))


def test_what_does_not_fit_in_memory_is_one_sentence(tmp_path, monkeypatch):
    def empty(*_):
        raise MemoryError("Unable to allocate 4.00 B")

    idx.write(tmp_path / "a", np.arange(4, dtype="u1"))
    monkeypatch.setattr(np, "empty", empty)
    with pytest.raises(DataError, match=f"{tmp_path / 'a'}: 4 data bytes do not fit in memory"):
        idx.read(tmp_path / "a")


@pytest.mark.parametrize("name", ["a", "a.gz"])
@pytest.mark.parametrize("break_at", ["write", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, name, break_at):
    def full(*_):
        raise OSError(28, "No space left on device")

    class FullDisk(io.FileIO):
        write = full

    path = tmp_path / name
    idx.write(path, np.arange(3, dtype="u1"))
    with monkeypatch.context() as patch:
        if break_at == "write":
            patch.setattr("builtins.open", lambda path, mode: FullDisk(path, mode))
        else:
            patch.setattr(os, break_at, full)
        with pytest.raises(DataError, match=rf"{path}: cannot be written: No space left on device"):
            idx.write(path, np.arange(5, dtype="u1"))
    assert idx.read(path).tolist() == [0, 1, 2] and os.listdir(tmp_path) == [name]


def test_writing_where_one_cannot(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="cannot be written: No such file or directory"):
        idx.write(tmp_path / "no" / "where", np.zeros(1, "u1"))
    with pytest.raises(DataError, match="cannot be written: Is a directory"):
        idx.write(tmp_path, np.zeros(1, "u1"))
    if os.path.exists("/dev/full"):  # a device is written to, never replaced
        monkeypatch.setattr(os, "replace", lambda *_: pytest.fail("/dev/full would be replaced"))
        with pytest.raises(DataError, match="/dev/full: cannot be written: No space left on device"):
            idx.write("/dev/full", np.zeros(1, "u1"))
    for other in ("int64", "uint16", "float16", "bool", "U1"):
        with pytest.raises(ValueError, match="its types are uint8, int8, int16, int32, float32, float64"):
            idx.write(tmp_path / "x", np.zeros(1, other))
    assert os.listdir(tmp_path) == []


def test_equal_arrays_make_equal_files(tmp_path):
    for name in ("a.gz", "b.gz"):
        idx.write(tmp_path / name, np.arange(100, dtype="i4"))
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert (tmp_path / "a.gz").read_bytes()[3:8] == bytes(5)  # neither a name nor a time in the gzip header
