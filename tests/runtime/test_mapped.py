"""Images on disk or on the host give the batches that images on the device give, and take little memory."""

import gzip
import itertools
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT, module

from tinymnist import idx
from tinymnist.backend import mx
from tinymnist.batches import Batches, Split, permutation
from tinymnist.datasets import mapped
from tinymnist.datasets.mapped import HostBatches, make_batches, map_file, pixel_statistics, read_rows, release_pages
from tinymnist.idx import DataError
from tinymnist.runtime.step import share_batches


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


ROWS = np.array([3, 0, 17, 3])


@pytest.mark.parametrize(
    "part", [np.s_[:], np.s_[:50], np.s_[30:], np.s_[5:90:3], np.s_[::-1], np.s_[:, 2:4], np.s_[:, ::2, ::-1]], ids=str
)
def test_rows_are_those_of_the_array(tmp_path, part):
    array = np.random.default_rng(0).integers(0, 256, (100, 7, 9), np.uint8)
    idx.write(tmp_path / "file", array)
    images = map_file(tmp_path / "file")[part]
    assert isinstance(images, np.memmap) and not images.flags.writeable
    release_pages(images)
    for some in (images, images.copy(), array[part]):
        found = read_rows(some, ROWS)
        assert np.array_equal(found, array[part][ROWS]) and found.flags.writeable
    assert len(read_rows(images, ROWS[:0])) == 0


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
    images = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
    images[-1] = 255
    mean, std = pixel_statistics(images)
    assert mean == pytest.approx((images / 255).mean(), rel=1e-12) and type(mean) is float
    assert std == pytest.approx((images / 255).std(), rel=1e-12) and type(std) is float


def make_split(n, path=None):
    """n random images of 2 x 3, mapped if there is a path"""
    images = np.random.default_rng(0).integers(0, 256, (n, 2, 3), np.uint8)
    if path is not None:
        idx.write(path, images)
        images = map_file(path)
    return Split(images, (np.arange(n) % 10).astype(np.uint8))


def same(batch, other):
    """Two batches are equal, or there is none."""
    return (batch is other is None) or all(
        a.context == b.context and a.dtype == b.dtype and np.array_equal(a.asnumpy(), b.asnumpy())
        for a, b in zip(batch, other)
    )


@pytest.mark.parametrize("place", ["on the host", "on disk"])
@pytest.mark.parametrize("n, size", [(1, 1), (10, 3), (10, 5), (10, 99), (600, 64)])
def test_host_batches_are_those_of_the_device(tmp_path, device, place, n, size):
    split, order = make_split(n), permutation(1, 2, n)
    host = HostBatches(make_split(n, tmp_path / "images") if place == "on disk" else split, size, device)
    ours = Batches(split, size, device)
    assert all(same(*pair) for pair in itertools.zip_longest(host.epoch(order), ours.epoch(order)))
    for share in ((0, 1), (0, 3), (2, 3)):
        for start in (0, 1):
            found, expected = (share_batches(batches, order, share, start=start) for batches in (host, ours))
            assert all(same(*pair) for pair in itertools.zip_longest(found, expected))


def test_altered_batches_have_their_own_random_numbers(device):
    def alter(images, rng):
        calls.append((images.tolist(), rng.integers(1 << 30)))
        return 255 - images

    calls, order, split = [], permutation(0, 0, 10), make_split(10)
    batches = make_batches(split, 4, device, alter)
    found = list(share_batches(batches, order, (1, 2), start=1, seed=(5, 3)))
    numbers = [np.random.default_rng((5, 3, batch, 1)).integers(1 << 30) for batch in (1, 2)]
    parts = [order[6:8], order[9:]]
    assert calls == [(split.images[part].tolist(), number) for part, number in zip(parts, numbers)]
    for (images, labels), part in zip(found, parts):
        assert np.array_equal(images.asnumpy()[:, 0], 255 - split.images[part])
        assert np.array_equal(labels.asnumpy(), split.labels[part])
    calls.clear()
    for _ in range(2):
        next(batches.epoch(order))
    assert calls[0] == calls[1]  # without a seed, too


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
import tinymnist as tm
from tinymnist.datasets import mapped

def megabytes(what):  # VmHWM is the most memory that was used, with the pages of files
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what)) / 1000

def train(data, kind):
    rule = tm.Optimizer("sgd", lr=0.1)
    run = tm.fit(tm.softmax_regression(), rule, data, epochs=1, batch_size=1000, normalize=True, log_interval=10)
    assert type(run.steps[0].batches) is kind
    return run.fingerprint

train(tm.load("digits"), mapped.Batches)  # MXNet and our code are in memory
before = megabytes("VmRSS")
mapped.WHOLE = int(sys.argv[2])
train(tm.load(sys.argv[1]), mapped.HostBatches)
print(megabytes("VmHWM") - before)
"""


@pytest.mark.parametrize(
    "examples, whole, megabytes",
    [(80_000, 1 << 20, 80), pytest.param(5_200_000, 256 << 20, 500, marks=pytest.mark.slow)],
    ids=["63 MB", "4 GB"],
)
def test_an_epoch_takes_little_memory(tmp_path, examples, whole, megabytes):
    """All images are read, in random order. Most memory is used to count pixels: 34 MB, 8 bytes for each."""
    module("scaling").write_noise(tmp_path / "data", examples)
    command = [sys.executable, "-c", TRAIN, str(tmp_path / "data"), str(whole)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < megabytes
