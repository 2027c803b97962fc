"""A saved run reads images, pictures and IDX files; what it says is what the model says."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT, command, module, refused

import tinymnist as tm
from tinymnist.backend import mx
from tinymnist.datasets.pictures import read_picture

predict = command("predict")
script = module("predict")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a small run on the embedded digits"""
    directory = tmp_path_factory.mktemp("runs") / "softmax"
    settings = {"epochs": 3, "batch_size": 64, "normalize": True, "limit": 600, "save": directory}
    tm.fit(tm.softmax_regression(), tm.Optimizer("adagrad", lr=0.3), tm.load("digits"), **settings)
    return directory


@pytest.fixture(scope="module")
def model(run):
    return tm.checkpoint.load(run)[0]


@pytest.fixture(scope="module")
def test():
    return tm.load("digits").test


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_probabilities_of_an_idx_file(run, model, test, tmp_path, name):
    tm.idx.write(tmp_path / name, test.images)
    expected = tm.predict(model, test.images)
    for suffix in ("npy", "csv"):
        assert predict(run, "--images", tmp_path / name, "--output", tmp_path / f"p.{suffix}") == 0
    assert np.array_equal(np.load(tmp_path / "p.npy"), expected)
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0] == "0,1,2,3,4,5,6,7,8,9" and len(lines) == 301
    found = np.loadtxt(tmp_path / "p.csv", delimiter=",", skiprows=1)
    assert np.array_equal(found.astype(np.float32), expected) and np.allclose(found.sum(1), 1, atol=1e-6)


def test_accuracy_confusion_and_recall(run, model, test, capsys):
    """By default of the test images of the data that the run was trained on"""
    assert predict(run) == 0
    said = capsys.readouterr().out
    read = tm.predict(model, test.images).argmax(1)
    pairs = list(zip(test.labels.tolist(), read.tolist()))
    right = sum(a == b for a, b in pairs)
    assert f"accuracy {right / 300:.4f}: {right} of 300 right" in said
    for digit in range(10):
        row = [sum(pair == (digit, other) for pair in pairs) for other in range(10)]
        expected = [str(digit), *(str(n) if n else "·" for n in row), f"{row[digit] / sum(row):.4f}"]
        assert expected in [line.split() for line in said.splitlines()]


def test_the_most_confident_mistakes(run, model, test, capsys):
    assert predict(run, "--mistakes", 5) == 0
    said = capsys.readouterr().out
    found = re.findall(r"image (\d+): (\d) with probability (\S+); it is (\d)", said)
    probabilities = tm.predict(model, test.images)
    read = probabilities.argmax(1)
    wrong = [n for n in range(300) if read[n] != test.labels[n]]
    wrong.sort(key=lambda n: -probabilities[n].max())
    expected = [(n, read[n], f"{probabilities[n].max():.4f}", test.labels[n]) for n in wrong[:5]]
    assert [tuple(row) for row in found] == [tuple(map(str, row)) for row in expected]
    assert f"of {len(wrong)} mistakes" in said


def test_labels_of_an_idx_file(run, test, tmp_path, capsys):
    tm.idx.write(tmp_path / "images", test.images[:50])
    tm.idx.write(tmp_path / "labels", test.labels[:50].astype(np.int32))
    assert predict(run, "--images", tmp_path / "images", "--labels", tmp_path / "labels") == 0
    assert "of 50 right" in capsys.readouterr().out


def test_single_images(run, model, test, capsys):
    assert predict(run, "--index", 7, 299) == 0
    probabilities = tm.predict(model, test.images[[7, 299]])
    expected = [
        f"image {n}: {p.argmax()} with probability {p.max():.4f}; it is {test.labels[n]}"
        for n, p in zip((7, 299), probabilities)
    ]
    assert capsys.readouterr().out.splitlines() == expected


def test_figures(run, tmp_path, capsys):
    assert predict(run, "--figures", tmp_path) == 0
    for name in ("predictions", "mistakes", "confusion", "first-layer"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"{name}.png" in capsys.readouterr().out or name != "predictions"
    only = tmp_path / "only"
    assert predict(run, "--figures", only, "--index", 3) == 0
    assert sorted(path.name for path in only.iterdir()) == ["first-layer.png", "predictions.png"]


def drawn(path, digit, font, size, ink, paper):
    """A picture file of `size` pixels with a digit as a font has it"""
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(size / 100, size / 100), dpi=100)
    figure.text(0.5, 0.5, str(digit), family=font, size=0.45 * size, color=ink, ha="center", va="center")
    figure.savefig(path, facecolor=paper)
    return path


KINDS = [
    ("DejaVu Sans", 400, "black", "white"),
    ("DejaVu Sans", 64, "white", "black"),
    ("DejaVu Sans Mono", 150, "navy", "#eee0c0"),
]


def test_pictures_one_or_many(run, model, tmp_path, capsys):
    pictures = [drawn(tmp_path / f"{n}.png", n, *KINDS[n % 3]) for n in (1, 4, 7)]
    assert predict(run, *pictures, "--output", tmp_path / "p.npy", "--figures", tmp_path) == 0
    probabilities = tm.predict(model, np.stack([read_picture(path) for path in pictures]))
    said = capsys.readouterr().out.splitlines()
    for line, path, p in zip(said, pictures, probabilities):
        assert line == f"{path}: {p.argmax()} with probability {p.max():.4f}"
    assert np.array_equal(np.load(tmp_path / "p.npy"), probabilities)


def rendered(run, tmp_path, capsys, kind):
    """How many of the ten digits of a font are read right, by the command"""
    pictures = [drawn(tmp_path / f"{digit}.png", digit, *kind) for digit in range(10)]
    capsys.readouterr()
    assert predict(run, *pictures) == 0
    lines = capsys.readouterr().out.splitlines()
    return sum(line.startswith(f"{path}: {digit} with") for digit, (line, path) in enumerate(zip(lines, pictures)))


def test_lenet_of_the_embedded_digits_reads_most_of_a_font(tmp_path, capsys):
    """Of handwriting of 8×8 pixels; chance would be 1 of 10"""
    settings = {"epochs": 4, "batch_size": 50, "augment": True, "save": tmp_path / "run"}
    tm.fit(tm.lenet(filters=(8, 16), hidden=64), tm.Optimizer("adagrad", lr=0.02), tm.load("digits"), **settings)
    assert rendered(tmp_path / "run", tmp_path, capsys, KINDS[0]) >= 6


@pytest.fixture(scope="module")
def lenet(tmp_path_factory):
    """The directory of a LeNet trained on a part of the real MNIST"""
    if not os.environ.get("TINYMNIST_DATA"):
        pytest.skip("needs the real MNIST: $TINYMNIST_DATA names its directory")
    directory = tmp_path_factory.mktemp("runs") / "lenet"
    data = tm.load()
    data = data._replace(test=tm.datasets.load.Split(*(array[:1000] for array in data.test)))
    rule = tm.Optimizer("momentum", lr=0.03, momentum=0.9)
    tm.fit(tm.lenet(activation="relu"), rule, data, epochs=1, limit=20000, save=directory)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]} {kind[1]} {kind[2]} on {kind[3]}")
def test_lenet_of_mnist_reads_nine_of_ten(lenet, tmp_path, capsys, kind):
    assert rendered(lenet, tmp_path, capsys, kind) >= 9


def idx_file(path, array):
    tm.idx.write(path, np.asarray(array))
    return path


@pytest.mark.parametrize(
    "make, named",
    [
        (lambda d: ["--images", idx_file(d / "i", np.zeros((3, 20, 20), np.uint8))], ["20×20", "takes 28×28"]),
        (lambda d: ["--images", idx_file(d / "i", np.zeros((3, 28, 28), np.float32))], ["float32", "are bytes"]),
        (lambda d: ["--images", idx_file(d / "i", np.zeros((3, 28), np.uint8))], ["(3, 28)"]),
        (lambda d: ["--images", idx_file(d / "i", np.zeros((0, 28, 28), np.uint8))], ["(0, 28, 28)"]),
        (lambda d: ["--images", d / "nowhere"], ["nowhere", "No such file"]),
        (lambda d: ["--labels", d / "labels"], ["--labels belong to --images"]),
        (lambda d: ["--index", 300], ["there is no image 300", "300, counted from 0"]),
        (lambda d: ["--index", -1], ["there is no image -1"]),
        (lambda d: [d / "a.png", "--index", 0], ["--index chooses among --images"]),
        (lambda d: ["--mistakes", -95], ["--mistakes -95", "from 0 on"]),
        (lambda d: ["--output", d / "p.txt"], ["p.txt", ".npy or .csv"]),
        (lambda d: ["--output", d / "nowhere" / "p.npy"], ["nowhere", "cannot be written"]),
        (lambda d: ["--show"], ["--figures"]),
        (
            lambda d: ["--figures", idx_file(d / "file", np.zeros(1, np.uint8))],
            ["file: cannot be drawn in", "File exists"],
        ),
        (lambda d: ["--data", "nonsense"], ["nonsense"]),
        (lambda d: ["a.png", "--data", "digits"], ["one of the three"]),
        (lambda d: [d / "none.png"], ["none.png", "cannot be read"]),
        (lambda d: [d], ["cannot be read"]),
    ],
)
def test_what_cannot_be_read(make, named, run, tmp_path, capsys):
    assert refused(capsys, predict(run, *make(tmp_path)), *named)


@pytest.mark.parametrize("labels, named", [([1, 2], "(2,)"), ([1, 2, 10], "10"), ([1, 2, -1], "-1")])
def test_labels_that_do_not_fit(labels, named, run, tmp_path, capsys):
    images = idx_file(tmp_path / "images", np.zeros((3, 28, 28), np.uint8))
    file = idx_file(tmp_path / "labels", np.array(labels, np.int8))
    assert refused(capsys, predict(run, "--images", images, "--labels", file), "labels", named)


def test_a_picture_that_is_none(run, tmp_path, capsys):
    (tmp_path / "seven.png").write_text("a seven")
    assert refused(capsys, predict(run, tmp_path / "seven.png"), "seven.png", "is not a picture")


def test_a_directory_without_a_checkpoint(tmp_path, capsys):
    assert refused(capsys, predict(tmp_path), str(tmp_path), "holds no checkpoint")
    assert refused(capsys, predict(tmp_path / "nowhere"), "nowhere", "is no directory")


def test_pictures_for_a_model_of_another_size(tmp_path, capsys):
    model = tm.softmax_regression(image=(1, 7, 7)).initialize()
    some = tm.load("digits")
    small = [tm.datasets.load.Split(images[:50, ::4, ::4], labels[:50]) for images, labels in some[:2]]
    data = some._replace(train=small[0], test=small[1])
    tm.fit(model, tm.Optimizer("sgd", lr=0.1), data, epochs=1, save=tmp_path / "run")
    picture = drawn(tmp_path / "3.png", 3, *KINDS[0])
    assert refused(capsys, predict(tmp_path / "run", picture), "28×28", "takes 7×7")


def process(*words, **how):
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **how}
    return subprocess.run([sys.executable, ROOT / "scripts" / "predict.py", *map(str, words)], **how)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_files_are_written_before_anything_is_printed(run, tmp_path):
    with open("/dev/full", "w") as full:
        ended = process(run, "--output", tmp_path / "p.npy", "--figures", tmp_path, stdout=full)
    assert ended.returncode == 2
    assert ended.stderr == "standard output cannot be written: No space left on device\n"
    assert np.load(tmp_path / "p.npy").shape == (300, 10) and (tmp_path / "first-layer.png").exists()


def test_a_terminal_that_cannot_print_a_dot(run, tmp_path):
    ended = process(run, "--output", tmp_path / "p.npy", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (ended.returncode, ended.stderr) == (0, "") and " ? " in ended.stdout
    assert (tmp_path / "p.npy").exists()


@pytest.mark.skipif(os.name != "posix", reason="starts a process by a shell")
def test_without_an_output(run, tmp_path):
    words = [sys.executable, ROOT / "scripts" / "predict.py", run, "--output", tmp_path / "p.npy"]
    ended = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *words], stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (0, "") and np.load(tmp_path / "p.npy").shape == (300, 10)


@pytest.mark.parametrize(
    "error, status, sentence",
    [
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (MemoryError(), 1, "out of memory"),
        (mx.MXNetError("Traceback\n  line\nMXNetError: no room\n"), 1, "MXNetError: no room"),
    ],
)
def test_what_ends_in_the_middle(error, status, sentence, run, monkeypatch, capsys):
    def fails(*_):
        raise error

    monkeypatch.setattr(tm, "predict", fails)
    assert predict(run) == status and capsys.readouterr().err == f"{sentence}\n"
