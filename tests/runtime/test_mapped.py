"""Images on disk or on the host give the batches that images on the device give, and take little memory."""

import gzip
import itertools
import mmap

import numpy as np
import pytest
from commands import ROOT, finish, module, start

from tinymnist import idx
from tinymnist.backend import mx
from tinymnist.batches import Batches, Split, permutation
from tinymnist.datasets import mapped
from tinymnist.datasets.mapped import HostBatches, make_batches, map_file, pixel_statistics, read_rows, release_pages
from tinymnist.idx import DataError
from tinymnist.runtime.step import GROUP, share_batches


def test_mapping_a_file_gives_the_array_or_the_sentence_that_reading_gives(tmp_path):
    def outcome(read):
        try:
            array = read(path)
            return array.shape, array.dtype.newbyteorder("="), array.tolist()
        except DataError as error:
            return str(error)

    path = tmp_path / "file"
    for dtype, shape in itertools.product(idx.CODES, [(), (0,), (3,), (2, 0, 3), (2, 3, 4), (1,) * 32]):
        idx.write(path, np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype))
        assert outcome(map_file) == outcome(idx.read)
        assert isinstance(map_file(path), np.memmap) == (0 not in shape)
    idx.write(path, np.arange(6, dtype="int16").reshape(2, 3))
    good = path.read_bytes()
    short = [good[:n] for n in range(len(good))]
    changed = [good[:i] + bytes([byte]) + good[i + 1 :] for i in range(12) for byte in (1, 9, 255)]
    for content in (*short, *changed, good + b"x", gzip.compress(good), gzip.compress(good)[:-1]):
        path.write_bytes(content)
        assert outcome(map_file) == outcome(idx.read)
    path.unlink()
    assert outcome(map_file) == outcome(idx.read) == f"{path}: cannot be read: No such file or directory"


@pytest.mark.parametrize(
    "part", [np.s_[:], np.s_[:50], np.s_[30:], np.s_[5:90:3], np.s_[::-1], np.s_[:, 2:4], np.s_[:, ::2, ::-1]], ids=str
)
def test_rows_are_those_of_the_array(tmp_path, part):
    array, rows = np.random.default_rng(0).integers(0, 256, (100, 7, 9), np.uint8), np.array([3, 0, 17, 3])
    idx.write(tmp_path / "file", array)
    images = map_file(tmp_path / "file")[part]
    assert isinstance(images, np.memmap) and not images.flags.writeable
    release_pages(images)
    for some in (images, images.copy(), array[part]):
        found = read_rows(some, rows)
        assert np.array_equal(found, array[part][rows]) and found.flags.writeable
    assert len(read_rows(images, rows[:0])) == 0


@pytest.mark.parametrize("offset", [0, 16, mmap.ALLOCATIONGRANULARITY, 2 * mmap.ALLOCATIONGRANULARITY + 16])
def test_rows_of_a_file_that_the_caller_mapped_may_begin_anywhere(tmp_path, offset):
    array = np.random.default_rng(0).integers(0, 256, (900, 7, 9), np.uint8)
    (tmp_path / "file").write_bytes(bytes(offset) + array.tobytes())
    images, rows = np.memmap(tmp_path / "file", np.uint8, "r", offset, array.shape), np.array([5, 0, 7])
    for some, expected in ((images, array), (images[10:][5:], array[15:]), (images[::3], array[::3])):
        assert np.array_equal(read_rows(some, rows), expected[rows])


def test_rows_of_a_file_that_became_shorter_or_is_gone_are_one_sentence(tmp_path):
    idx.write(tmp_path / "file", np.zeros((100, 7, 9), np.uint8))
    images = map_file(tmp_path / "file")
    with open(tmp_path / "file", "r+b") as file:
        file.truncate(5000)
    with pytest.raises(DataError, match=f"^{tmp_path}/file: has become shorter since it was opened"):
        read_rows(images, np.arange(100))
    (tmp_path / "file").unlink()
    with pytest.raises(DataError, match=f"^{tmp_path}/file: can no longer be read: No such file"):
        read_rows(images, np.arange(100))


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 3, 5), (1000, 28, 28)])
@pytest.mark.parametrize("counted", [1, 100, 10**6])
def test_statistics_are_those_of_all_pixels(shape, counted, monkeypatch):
    monkeypatch.setattr(mapped, "COUNTED", counted)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    images[-1] = 255
    found, pixels = pixel_statistics(images), images / 255
    assert found == pytest.approx((pixels.mean(), pixels.std()), rel=1e-12) and {*map(type, found)} == {float}


def make_split(n):
    return Split(np.random.default_rng(0).integers(0, 256, (n, 2, 3), np.uint8), np.arange(n).astype(np.uint8))


@pytest.mark.parametrize("kind, on_disk", [(Batches, False), (HostBatches, False), (HostBatches, True)])
@pytest.mark.parametrize("options", [{}, {"start": 1}, {"start": 3}], ids=str)
@pytest.mark.parametrize("n, size", [(12, 4), (13, 4), (9, 8), (5, 2), (1, 3), (9, 100), (2 * GROUP, 1), (600, 7)])
@pytest.mark.parametrize("shares", [1, 2, 3, 7])
def test_shares_divide_every_batch(tmp_path, device, kind, on_disk, n, size, shares, options):
    """The devices and workers of a run have each example once, and about as many examples each."""
    order, split = permutation(0, 0, n), make_split(n)
    idx.write(tmp_path / "images", split.images)
    images = map_file(tmp_path / "images") if on_disk else split.images
    batches = kind(Split(images, split.labels), size, device)
    parts = [share_batches(batches, order, (i, shares), **options) for i in range(shares)]
    for begin, *found in itertools.zip_longest(range(options.get("start", 0) * size, n, size), *parts):
        for arrays, expected in zip(zip(*filter(None, found)), split):  # images, then labels
            assert {(array.context, array.dtype) for array in arrays} == {(device, np.uint8)}
            joined = np.concatenate([array.asnumpy() for array in arrays])
            assert joined.tobytes() == expected[order[begin : begin + size]].tobytes()
        sizes = [0 if part is None else len(part[1]) for part in found]
        assert sum(sizes) == min(size, n - begin) and max(sizes) - min(sizes) <= 1
        assert sizes.count(0) == found.count(None)


def test_altered_batches_draw_from_the_seed_the_batch_and_the_share():
    def alter(images, rng):
        return images ^ rng.integers(256, dtype=np.uint8)

    def draw(*seed):
        return np.random.default_rng(seed).integers(256, dtype=np.uint8)

    order, split = permutation(0, 0, 10), make_split(10)
    batches = make_batches(split, 4, mx.cpu(), alter)
    shares = share_batches(batches, order, (1, 2), start=1, seed=(5, 3))
    for batch, part in ((1, order[6:8]), (2, order[9:])):
        images, labels = next(shares)
        assert images.asnumpy().tobytes() == (split.images[part] ^ draw(5, 3, batch, 1)).tobytes()
        assert labels.asnumpy().tolist() == split.labels[part].tolist()
    images, _ = next(batches.epoch(order))  # without a seed, always the same
    assert images.asnumpy().tobytes() == (split.images[order[:4]] ^ draw(0)).tobytes()


@pytest.mark.parametrize("n, kind", [(256, Batches), (257, HostBatches)])
def test_only_mapped_files_above_256_mib_and_altered_images_stay_where_they_are(tmp_path, monkeypatch, n, kind):
    monkeypatch.setattr(Batches, "to_device", lambda self, array: array)
    with open(tmp_path / "images", "wb") as sparse:
        sparse.write(bytes([0, 0, 8, 3]) + np.array([n, 1024, 1024], ">u4").tobytes())
        sparse.truncate(16 + (n << 20))
    images, labels = map_file(tmp_path / "images"), np.zeros(n, np.uint8)
    in_memory = np.broadcast_to(np.uint8(0), images.shape)
    assert type(make_batches(Split(images, labels), 1, mx.cpu())) is kind
    assert type(make_batches(Split(in_memory, labels), 1, mx.cpu())) is Batches
    assert type(make_batches(make_split(1), 1, mx.cpu(), alter=lambda images, rng: images)) is HostBatches


TRAIN = """
import sys
sys.path.append("scripts")
import tinymnist as tm
from scaling import read_memory
from tinymnist.datasets import mapped

def train(data):
    settings = {"epochs": 1, "batch_size": 1000, "normalize": True, "log_interval": 10}
    return tm.fit(tm.softmax_regression(), tm.Optimizer("sgd", lr=0.1), data, **settings).fingerprint

train(tm.load("digits"))  # MXNet and our code are in memory
before = read_memory("VmRSS")
mapped.LARGE = int(sys.argv[2])
train(tm.load(sys.argv[1]))
print(read_memory("VmHWM") - before)  # the most memory that was used, with the pages of files
"""


@pytest.mark.parametrize(
    "examples, whole, megabytes",
    [(80_000, 1 << 20, 80), pytest.param(5_200_000, 256 << 20, 500, marks=pytest.mark.slow)],
    ids=["63 MB", "4 GB"],
)
def test_an_epoch_takes_little_memory(tmp_path, examples, whole, megabytes):
    """All images are read, in random order. Most memory is used to count pixels: 34 MB, 8 bytes for each."""
    module("scaling").write_noise(tmp_path / "data", examples)
    status, out, err = finish(start(tmp_path / "data", whole, python=["-c", TRAIN], cwd=ROOT))
    assert status == 0, err
    assert float(out) < megabytes
