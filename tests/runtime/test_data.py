"""Where data is found, in which order, and what is checked."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import command

from tinymnist import idx
from tinymnist.datasets import download
from tinymnist.datasets.load import Data, Split, load, load_test_split
from tinymnist.experiments import recipes
from tinymnist.idx import DataError
from tinymnist.runtime import checkpoint

MNIST = os.environ.get("TINYMNIST_DATA")
IMAGES = np.random.RandomState(0).randint(0, 256, (12, 5, 4)).astype(np.uint8)
LABELS = (np.arange(12) % 10).astype(np.uint8)


@pytest.fixture(autouse=True)
def new_machine(tmp_path, monkeypatch):
    """A machine without data and network: its home is empty and the mirrors refuse."""
    for name in ("TINYMNIST_DATA", "MXNET_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in download.MIRRORS:
        monkeypatch.setitem(download.MIRRORS, name, ["https://127.0.0.1:1/"] * 3)


def write(directory, train=(IMAGES, LABELS), test=(IMAGES[:7], LABELS[:7]), end=""):
    os.makedirs(directory, exist_ok=True)
    for prefix, (images, labels) in (("train", train), ("t10k", test)):
        idx.write(f"{directory}/{prefix}-images-idx3-ubyte{end}", images)
        idx.write(f"{directory}/{prefix}-labels-idx1-ubyte{end}", labels)
    return str(directory)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_directory_is_loaded(tmp_path, end):
    write(tmp_path / "mine", train=(IMAGES[::-1], LABELS), end=".gz")
    data = load(write(tmp_path / "mine", end=end))  # a plain file comes before the compressed one
    for found, expected in zip((*data.train, *data.test), (IMAGES, LABELS, IMAGES[:7], LABELS[:7])):
        assert np.array_equal(found, expected) and found.dtype == np.uint8
    assert isinstance(data.train.images, np.memmap) == (end == "")
    assert data.name == str(tmp_path / "mine")
    assert data.source == f"IDX files: 12 training and 7 test images of 5x4 from {data.name}"
    assert repr(data) == f"Data({data.name}: 12 training and 7 test images of 5x4)"


FILES = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]


def rename(directory, change):
    for name in FILES:
        for path in Path(directory).glob(f"{name}*"):
            (Path(directory) / change(path.name)).parent.mkdir(parents=True, exist_ok=True)
            path.rename(Path(directory) / change(path.name))


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name.replace("-idx", ".idx"),
        str.upper,
        lambda name: f"MNIST/raw/{name}",
        lambda name: f"FashionMNIST/raw/{name}",
        lambda name: f"qmnist-{name.replace('t10k', 'test')}",
    ],
)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_names_that_other_programs_give_the_files_are_understood(tmp_path, change, end):
    rename(write(tmp_path, end=end), change)
    data = load(tmp_path)
    for found, expected in zip((*data.train, *data.test), (IMAGES, LABELS, IMAGES[:7], LABELS[:7])):
        assert np.array_equal(found, expected) and not found.flags.writeable


def test_a_folder_with_the_name_of_a_file_is_ignored(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").mkdir()
    assert len(load(write(tmp_path, end=".gz")).train.labels) == 12


def test_the_labels_of_qmnist_are_its_first_column(tmp_path):
    table = np.stack([LABELS, *[LABELS + 1] * 7], 1).astype("int32")
    write(tmp_path, (IMAGES, table), (IMAGES[:7], table[:7]))
    rename(tmp_path, lambda name: "qmnist-" + name.replace("t10k", "test").replace("idx1-ubyte", "idx2-int"))
    data = load(tmp_path)
    assert np.array_equal(data.train.labels, LABELS) and np.array_equal(data.test.labels, LABELS[:7])


@pytest.mark.parametrize("name, first", [("emnist-letters", 1), ("emnist-balanced", 0)])
def test_the_images_of_emnist_are_transposed_and_its_letters_begin_at_1(tmp_path, name, first):
    labels = (np.arange(12) * 2 + first).astype(np.uint8)
    write(tmp_path, (IMAGES, labels), (IMAGES[:7], labels[:7]))
    rename(tmp_path, lambda file: f"{name}-{file.replace('t10k', 'test')}")
    data = load(tmp_path)
    assert np.array_equal(data.train.images, IMAGES.transpose(0, 2, 1))
    assert data.train.labels.tolist() == [*range(0, 24, 2)] and data.classes == 23
    write(tmp_path)
    rename(tmp_path, lambda file: f"emnist-digits-{file}")
    with pytest.raises(DataError, match=rf"holds several data sets: .*{name}-.*; each needs its own directory"):
        load(tmp_path)


def test_more_than_ten_classes_can_be_trained(tmp_path, new_working_directory):
    labels = np.arange(12).astype(np.uint8)
    write(tmp_path / "mine", (IMAGES, labels), (IMAGES[:7], labels[:7]))
    assert command("train")("--epochs 1 --quiet --save run --data", tmp_path / "mine") == 0
    model = checkpoint.load("run")[0]
    assert (model.classes, load("digits").classes) == (12, 10)


def test_the_arrays_of_keras_are_loaded(tmp_path):
    np.savez(tmp_path / "mnist.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:7], y_test=LABELS[:7])
    data = load(tmp_path / "mnist.npz")
    assert data.source == f"arrays: 12 training and 7 test images of 5x4 from {tmp_path / 'mnist.npz'}"
    assert np.array_equal(data.train.images, IMAGES) and np.array_equal(data.test.labels, LABELS[:7])
    np.savez(tmp_path / "other.npz", images=IMAGES)
    with pytest.raises(DataError, match=r"other.npz: cannot be read: .*; expected the arrays x_train and y_train"):
        load(tmp_path / "other.npz")
    for labels in (["a"] * 12, LABELS + 0j, np.zeros(12, "datetime64[s]"), [b"1"] * 12):
        np.savez(tmp_path / "labels.npz", x_train=IMAGES, y_train=labels, x_test=IMAGES, y_test=labels)
        with pytest.raises(
            DataError, match=r"labels.npz, y_train: labels are .*; they must be whole numbers from 0 to"
        ):
            load(tmp_path / "labels.npz")
    with open(tmp_path / "other.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match=r"other\.npz: cannot be read"):
        load(tmp_path / "other.npz")
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "mnist.npz").read_bytes()[:200])
    with pytest.raises(DataError, match=r"damaged\.npz: cannot be read"):
        load(tmp_path / "damaged.npz")


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
    write(tmp_path / "home" / "mine")
    assert len(load("~/mine").train.labels) == 12
    monkeypatch.setenv("TINYMNIST_DATA", "~/mine")
    assert load().name == str(tmp_path / "home" / "mine")


def test_the_test_examples_need_no_training_files(tmp_path):
    write(tmp_path)
    for path in tmp_path.glob("train-*"):
        path.unlink()
    assert np.array_equal(load_test_split(tmp_path).labels, LABELS[:7])
    with pytest.raises(
        DataError, match=r"neither train-images-idx3-ubyte nor .*; it holds t10k-images-idx3-ubyte, t10k-la"
    ):
        load(tmp_path)


def test_the_embedded_digits_never_change():
    """test_pictures.py shows that they have the form of MNIST."""
    digits = load("digits")
    assert repr(digits) == "Data(digits: 1,497 training and 300 test images of 28x28)"
    assert digits.source.startswith("the embedded UCI digits: 1,497 training and 300 test images of 28x28 from ")
    assert digits.fingerprint == "584212d7"  # checkpoints contain it
    assert np.bincount(digits.test.labels).tolist() == [30] * 10
    assert len(np.unique(np.concatenate([digits.train.images, digits.test.images]), axis=0)) == 1797  # none twice


def test_data_is_found_in_the_documented_order(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(download.SHA256, "mnist", dict.fromkeys(download.SHA256["mnist"], "unknown"))
    assert load().name == "digits"
    assert "Using the embedded digits, which are not MNIST" in capfd.readouterr().err
    write(tmp_path / "home" / ".mxnet" / "datasets" / "mnist", end=".gz")
    assert load().name == "mnist" and "MNIST: 12 training" in load().source
    write(tmp_path / "gluon" / "datasets" / "mnist", test=(IMAGES[:8], LABELS[:8]), end=".gz")
    monkeypatch.setenv("MXNET_HOME", str(tmp_path / "gluon"))
    assert len(load().test.labels) == 8
    monkeypatch.setenv("TINYMNIST_DATA", write(tmp_path / "mine", test=(IMAGES[:9], LABELS[:9])))
    assert len(load().test.labels) == 9
    assert len(load(write(tmp_path / "argument", test=(IMAGES[:10], LABELS[:10]))).test.labels) == 10
    monkeypatch.setenv("TINYMNIST_DATA", "digits")
    assert load().name == "digits"


def test_requested_data_is_never_replaced_by_digits(tmp_path, monkeypatch):
    for name, sentence in [
        ("mnist", "mnist: none of its 3 mirrors answers within 3 seconds; go online once, or put its four .gz files"),
        ("fashion-mnist", "fashion-mnist: none of its 3 mirrors answers within 3 seconds"),
        (
            "nowhere",
            "nowhere: is not a directory, not an .npz file, and not one of the data sets digits, mnist, fashion-mnist",
        ),
        (tmp_path, f"{tmp_path}: there is neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz; it is empty"),
    ]:
        monkeypatch.setenv("TINYMNIST_DATA", str(name))
        for argument in (name, None):
            with pytest.raises(DataError, match=sentence):
                load(argument)


@pytest.mark.parametrize("package", ["pooch", "requests"])
def test_a_missing_package_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    with pytest.raises(DataError, match=f"mnist: downloading needs {package}; pip install pooch"):
        load("mnist")


def change(array, value, dtype):
    array = array.astype(dtype)
    array[5] = value
    return array


@pytest.mark.parametrize(
    "images, labels, sentence",
    [
        *((IMAGES, change(LABELS, n, "int32"), f"/LABELS: label 5 is {n}; labels are") for n in (256, -1, 261)),
        *((IMAGES, change(LABELS, x, "float32"), f"/LABELS: label 5 is {x}; labels are") for x in (2.5, np.nan)),
        (IMAGES, LABELS[:11], "/LABELS: 12 images but labels of the shape (11,); they must match"),
        (IMAGES[:11], LABELS, "/LABELS: 11 images but labels of the shape (12,); they must match"),
        (IMAGES, LABELS[:, None], "/LABELS: 12 images but labels of the shape (12, 1); they must match"),
        (IMAGES.astype("int8"), LABELS, "/IMAGES: pixels are int8; they must be bytes from 0 to 255, uint8"),
        (IMAGES.astype("float32"), LABELS, "/IMAGES: pixels are float32; they must be bytes from 0 to 255, uint8"),
        (IMAGES[:, 0], LABELS, "/IMAGES: has the shape (12, 4); expected"),
        (IMAGES[:, None], LABELS, "/IMAGES: has the shape (12, 1, 5, 4); expected"),
        (IMAGES[:0], LABELS[:0], "/IMAGES: has the shape (0, 5, 4); expected"),
        (IMAGES[:, :0], LABELS, "/IMAGES: has the shape (12, 0, 4); expected"),
        (IMAGES[:, :, 1:], LABELS, ": training images have the size (5, 3), test images (5, 4)"),
    ],
)
def test_every_defect_is_one_sentence(tmp_path, images, labels, sentence):
    with pytest.raises(DataError) as error:
        load(write(tmp_path, train=(images, labels)))
    sentence = sentence.replace("LABELS", "train-labels-idx1-ubyte").replace("IMAGES", "train-images-idx3-ubyte")
    assert str(error.value).startswith(f"{tmp_path}{sentence}")


@pytest.mark.parametrize("dtype", idx.CODES)
def test_labels_may_be_whole_numbers_of_any_type(tmp_path, dtype):
    labels = load(write(tmp_path, train=(IMAGES, LABELS.astype(dtype)))).train.labels
    assert labels.dtype == np.uint8 and np.array_equal(labels, LABELS)


def test_the_fingerprint_depends_on_all_data_and_on_nothing_else(tmp_path):
    other, turned = IMAGES.copy(), IMAGES.reshape(12, 4, 5)
    other[11, 4, 3] ^= 1
    cases = [
        {},
        {"train": (other, LABELS)},
        {"train": (IMAGES, change(LABELS, 9, "uint8"))},
        {"test": (other[5:], LABELS[:7])},
        {"test": (IMAGES[:7], LABELS[1:8])},
        {"train": (IMAGES[:11], LABELS[:11])},
        {"train": (turned, LABELS), "test": (turned[:7], LABELS[:7])},
    ]
    found = [load(write(tmp_path / str(i), **parts)).fingerprint for i, parts in enumerate(cases)]
    assert len(set(found)) == len(cases)
    assert load(write(tmp_path / "elsewhere", end=".gz")).fingerprint == found[0]


def test_the_fingerprint_of_much_data_covers_a_sample():
    large = Split(np.zeros((130, 1024, 1024), np.uint8), np.zeros(130, np.uint8))  # 130 MB: every third image
    data = Data(large, Split(large.images[:1], large.labels[:1]), "", "")
    first = data.fingerprint
    large.images[1] = 1
    assert data.fingerprint == first
    large.images[3] = 1
    assert data.fingerprint != first


@pytest.mark.skipif(not MNIST, reason="$TINYMNIST_DATA names no directory with MNIST")
def test_the_real_mnist_is_loaded():
    mnist = load(MNIST)
    assert repr(mnist) == f"Data({MNIST}: 60,000 training and 10,000 test images of 28x28)"
    assert mnist.fingerprint == recipes.MNIST


def test_make_digits_makes_the_embedded_digits(tmp_path):
    pytest.importorskip("sklearn", reason="scikit-learn contains the digits")
    assert command("make_digits")(tmp_path) == 0
    for ours, theirs in zip(load(tmp_path)[:2], load("digits")[:2]):
        assert np.array_equal(ours.labels, theirs.labels)
        assert np.abs(ours.images.astype(int) - theirs.images).max() <= 1  # another BLAS may round differently
