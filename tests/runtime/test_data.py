"""Where data is found, in which order, and what is asked of it."""

import builtins
import os

import numpy as np
import pytest

from tinymnist import idx
from tinymnist.datasets import download
from tinymnist.datasets import load as data
from tinymnist.datasets.load import DataError, load


@pytest.fixture(autouse=True)
def fresh_machine(tmp_path, monkeypatch):
    """No data, no network: an empty home, and mirrors that refuse."""
    for name in ("TINYMNIST_DATA", "MXNET_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in download.MIRRORS:
        monkeypatch.setitem(download.MIRRORS, name, ["https://127.0.0.1:1/"] * 3)


MNIST = os.environ.get("TINYMNIST_DATA")
IMAGES = np.random.RandomState(0).randint(0, 256, (12, 5, 4)).astype(np.uint8)
LABELS = (np.arange(12) % 10).astype(np.uint8)


def put(directory, train=(IMAGES, LABELS), test=(IMAGES[:7], LABELS[:7]), end=""):
    os.makedirs(directory, exist_ok=True)
    for prefix, (images, labels) in (("train", train), ("t10k", test)):
        idx.write(f"{directory}/{prefix}-images-idx3-ubyte{end}", images)
        idx.write(f"{directory}/{prefix}-labels-idx1-ubyte{end}", labels)
    return str(directory)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_directory(tmp_path, end):
    found = load(put(tmp_path / "mine", end=end))
    assert np.array_equal(found.train.images, IMAGES) and np.array_equal(found.train.labels, LABELS)
    assert np.array_equal(found.test.images, IMAGES[:7]) and np.array_equal(found.test.labels, LABELS[:7])
    assert found.source == f"IDX files: 12 training and 7 test images of 5x4 from {tmp_path / 'mine'}"
    assert found.name == str(tmp_path / "mine")
    assert isinstance(found.train.images, np.memmap) == (end == "")
    assert found.train.images.dtype == found.train.labels.dtype == np.uint8


def test_the_plain_file_goes_before_the_packed(tmp_path):
    put(tmp_path, train=(IMAGES[::-1], LABELS), end=".gz")
    assert np.array_equal(load(put(tmp_path)).train.images, IMAGES)


def test_the_embedded_digits():
    digits = load("digits")
    assert digits.train.images.shape == (1497, 28, 28) and digits.test.images.shape == (300, 28, 28)
    assert np.bincount(digits.test.labels).tolist() == [30] * 10
    assert "embedded UCI digits" in digits.source
    for images, _ in digits[:2]:
        heights, widths = images.any(2).sum(1), images.any(1).sum(1)
        assert heights.max() == 20 and heights.mean() > 19.5 and widths.max() <= 20  # the box
        assert (images.max((1, 2)) == 255).all() and 0.12 < (images > 127).mean() < 0.14  # MNIST's share of ink: 0.13
    together = np.concatenate([digits.train.images, digits.test.images])
    assert len(np.unique(together, axis=0)) == 1797  # no example is in both parts


def test_the_order_of_places(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(data.download.SHA256, "mnist", dict.fromkeys(data.download.SHA256["mnist"], "unknown"))
    assert load().name == "digits"
    assert "Going on with the embedded digits, which are not MNIST: mnist: none of its" in capfd.readouterr().err
    put(tmp_path / "home" / ".mxnet" / "datasets" / "mnist", end=".gz")
    assert load().name == "mnist" and "MNIST: 12 training" in load().source
    put(tmp_path / "gluon" / "datasets" / "mnist", test=(IMAGES[:8], LABELS[:8]), end=".gz")
    monkeypatch.setenv("MXNET_HOME", str(tmp_path / "gluon"))
    assert len(load().test.labels) == 8
    monkeypatch.setenv("TINYMNIST_DATA", put(tmp_path / "mine", test=(IMAGES[:9], LABELS[:9])))
    assert len(load().test.labels) == 9
    assert len(load(put(tmp_path / "asked", test=(IMAGES[:10], LABELS[:10]))).test.labels) == 10
    monkeypatch.setenv("TINYMNIST_DATA", "digits")
    assert load().name == "digits"


def test_what_was_asked_for_and_is_not_there(tmp_path, monkeypatch):
    for asked, sentence in [
        ("mnist", "mnist: none of its 3 mirrors answers within 3 seconds"),
        ("fashion-mnist", "fashion-mnist: none of its 3 mirrors answers within 3 seconds"),
        ("nowhere", "nowhere: is no directory, and none of the data sets digits, mnist, fashion-mnist"),
        (tmp_path, "there is neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz"),
    ]:
        with pytest.raises(DataError, match=sentence):
            load(asked)
        monkeypatch.setenv("TINYMNIST_DATA", str(asked))
        with pytest.raises(DataError, match=sentence):
            load()


@pytest.mark.parametrize("package", ["pooch", "requests"])
def test_without_pooch(monkeypatch, package):
    real = builtins.__import__

    def missing(name, *rest):
        if name == package:
            raise ImportError(f"No module named {name}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(DataError, match=f"mnist: downloading needs {package}; pip install pooch"):
        load("mnist")


def float_images(value):
    images = IMAGES.astype("float32")
    images[3, 2, 1] = value
    return images


def labels_with(value, dtype="int32"):
    labels = LABELS.astype(dtype)
    labels[5] = value
    return labels


@pytest.mark.parametrize(
    "images, labels, sentence",
    [
        (IMAGES, LABELS[:11], "train-labels-idx1-ubyte: 12 images but labels of the shape (11,)"),
        (IMAGES[:11], LABELS, "train-labels-idx1-ubyte: 11 images but labels of the shape (12,)"),
        (IMAGES, LABELS[:, None], "12 images but labels of the shape (12, 1)"),
        (IMAGES, labels_with(10), "train-labels-idx1-ubyte: label 5 is 10; labels are whole numbers from 0 to 9"),
        (IMAGES, labels_with(-1), "label 5 is -1; labels are whole numbers from 0 to 9"),
        (IMAGES, labels_with(-1, "int8"), "label 5 is -1; labels are whole numbers from 0 to 9"),
        (IMAGES, labels_with(256 + 5), "label 5 is 261; labels are whole numbers from 0 to 9"),
        (IMAGES, labels_with(2.5, "float32"), "label 5 is 2.5; labels are whole numbers from 0 to 9"),
        (IMAGES, labels_with(np.nan, "float64"), "label 5 is nan; labels are whole numbers from 0 to 9"),
        (IMAGES, labels_with(np.inf, "float64"), "label 5 is inf; labels are whole numbers from 0 to 9"),
        (float_images(np.nan), LABELS, "train-images-idx3-ubyte: holds NaN or infinite pixels"),
        (float_images(-np.inf), LABELS, "train-images-idx3-ubyte: holds NaN or infinite pixels"),
        (float_images(0), LABELS, "train-images-idx3-ubyte: its pixels are float32; they must be bytes"),
        (IMAGES.astype("int16"), LABELS, "its pixels are int16; they must be bytes from 0 to 255"),
        (IMAGES.astype("int8"), LABELS, "its pixels are int8; they must be bytes from 0 to 255"),
        (IMAGES[:, 0], LABELS, "has the shape (12, 4); expected (examples, height, width), none 0"),
        (IMAGES[:, None], LABELS, "has the shape (12, 1, 5, 4); expected (examples, height, width), none 0"),
        (IMAGES[:0], LABELS[:0], "has the shape (0, 5, 4); expected (examples, height, width), none 0"),
        (IMAGES[:, :0], LABELS, "has the shape (12, 0, 4); expected (examples, height, width), none 0"),
        (IMAGES[:, :, 1:], LABELS, "training images are [5, 3] pixels large, test images [5, 4]"),
    ],
)
def test_every_defect_is_one_sentence(tmp_path, images, labels, sentence):
    with pytest.raises(DataError) as error:
        load(put(tmp_path, train=(images, labels)))
    assert sentence in str(error.value) and str(error.value).startswith(str(tmp_path))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32", "float64"])
def test_labels_of_any_type_that_are_whole(tmp_path, dtype):
    for end in ("", ".gz"):
        labels = load(put(tmp_path, train=(IMAGES, LABELS.astype(dtype)), end=end)).train.labels
        assert labels.dtype == np.uint8 and np.array_equal(labels, LABELS)


def test_a_broken_file_is_named(tmp_path):
    put(tmp_path, end=".gz")
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: the gzip around it is cut short"):
        load(tmp_path)


def test_the_fingerprint_tells_data_apart(tmp_path):
    first = load(put(tmp_path / "a")).fingerprint
    assert first == load(put(tmp_path / "b", end=".gz")).fingerprint  # the same data elsewhere
    other, turned = IMAGES.copy(), np.ascontiguousarray(IMAGES.reshape(12, 4, 5))
    other[11, 4, 3] ^= 1
    changed = [
        {"train": (other, LABELS)},
        {"train": (IMAGES, labels_with(9))},
        {"test": (other[5:], LABELS[:7])},
        {"test": (IMAGES[:7], LABELS[1:8])},
        {"train": (IMAGES[:11], LABELS[:11])},
        {"train": (turned, LABELS), "test": (turned[:7], LABELS[:7])},
    ]
    prints = [load(put(tmp_path / str(i), **parts)).fingerprint for i, parts in enumerate(changed)]
    assert len({first, *prints}) == 1 + len(changed)


def test_the_fingerprint_looks_at_some_of_much_data():
    def fingerprint():
        return data.Data(large, small, "", "").fingerprint

    large = data.Split(np.zeros((130, 1024, 1024), np.uint8), np.zeros(130, np.uint8))  # 130 MB: every third is seen
    small = data.Split(large.images[:1], large.labels[:1])
    first = fingerprint()
    large.images[1] = 1
    assert fingerprint() == first
    large.images[3] = 1
    assert fingerprint() != first


@pytest.mark.skipif(not MNIST, reason="$TINYMNIST_DATA names no directory with MNIST")
def test_the_real_mnist():
    mnist = load(MNIST)
    assert mnist.train.images.shape == (60000, 28, 28) and mnist.test.images.shape == (10000, 28, 28)
    assert np.bincount(mnist.train.labels)[:3].tolist() == [5923, 6742, 5958]
    assert round(mnist.train.images.mean() / 255, 4) == 0.1307 and round(mnist.train.images.std() / 255, 4) == 0.3081


def test_make_digits_makes_what_is_embedded(tmp_path):
    pytest.importorskip("sklearn", reason="scikit-learn carries the digits")
    import runpy

    main = runpy.run_path(os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "make_digits.py"))["main"]
    assert main([str(tmp_path)]) == 0
    made, shipped = load(tmp_path), load("digits")
    for ours, theirs in zip(made[:2], shipped[:2]):
        assert np.array_equal(ours.labels, theirs.labels)
        assert np.abs(ours.images.astype(int) - theirs.images).max() <= 1  # another BLAS may round otherwise
