"""Data larger than memory: an uncompressed IDX file is trained on through the batches at hand, however large it is."""

import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT, module

from tinymnist import idx
from tinymnist.runtime.files import DataError, release, rows

TRAIN = """
import sys
import tinymnist as tm
from tinymnist import batches

def megabytes(what):  # VmHWM is the most memory that was ever held, with the pages of files
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what)) / 1000

def train(data):
    rule = tm.Optimizer("sgd", lr=0.1)
    run = tm.fit(tm.softmax_regression(), rule, data, epochs=1, batch_size=1000, normalize=True, log_interval=10)
    assert run.replicas[0].batches.resident == (data.name == "digits")
    return run.fingerprint, run.history[-1].test_accuracy

train(tm.load("digits"))  # MXNet and our code are in memory
before = megabytes("VmRSS")
batches.WHOLE = int(sys.argv[2])
train(tm.load(sys.argv[1]))
print(megabytes("VmHWM") - before)
"""


def peak(directory, whole):
    """Megabytes above the baseline that a process took at most to train an epoch on a directory's files"""
    command = [sys.executable, "-c", TRAIN, str(directory), str(whole)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return float(result.stdout)


def test_an_epoch_takes_little_memory(tmp_path):
    """63 MB of images. What is held at once is mostly the counting of pixels (8 bytes each, 34 MB)"""
    module("scaling").write(tmp_path / "data", 80000)
    assert peak(tmp_path / "data", 1 << 20) < 80


@pytest.mark.slow
def test_an_epoch_on_four_gigabytes(tmp_path):
    """Every image is read, in random order; at most 500 MB above the baseline, pages of the file included"""
    module("scaling").write(tmp_path / "data", 5_200_000)
    assert (tmp_path / "data" / "train-images-idx3-ubyte").stat().st_size > 4_000_000_000
    held = peak(tmp_path / "data", 256 << 20)
    print(f"{held:.0f} MB above the baseline")
    assert held < 500


@pytest.mark.parametrize("part", [np.s_[:], np.s_[:50], np.s_[30:], np.s_[5:90:3], np.s_[::-1]])
def test_rows_are_those_of_the_array(tmp_path, part):
    array = np.random.default_rng(0).integers(0, 256, (100, 7, 9), np.uint8)
    idx.write(tmp_path / "file", array)
    mapped, which = idx.read(tmp_path / "file", mmap=True)[part], np.array([3, 0, 17, 3])
    assert isinstance(mapped, np.memmap)
    release(mapped)
    np.testing.assert_array_equal(rows(mapped, which), array[part][which])
    np.testing.assert_array_equal(rows(array[part], which), array[part][which])
    assert rows(mapped, which).flags.writeable


def test_rows_notice_a_file_cut_short(tmp_path):
    idx.write(tmp_path / "file", np.zeros((100, 7, 9), np.uint8))
    mapped = idx.read(tmp_path / "file", mmap=True)
    with open(tmp_path / "file", "r+b") as file:
        file.truncate(5000)
    with pytest.raises(DataError, match="has become shorter than it was"):
        rows(mapped, np.arange(100))
    (tmp_path / "file").unlink()
    with pytest.raises(DataError, match="file: can no longer be read: No such file"):
        rows(mapped, np.arange(100))
