"""predict.py classifies images, pictures and IDX files; what it prints is what the model predicts."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT, command, refused

import tinymnist as tm
from tinymnist.datasets.pictures import read_picture
from tinymnist.runtime import checkpoint

predict = command("predict")
TEST = tm.load("digits").test
FONTS = [  # family, pixels, ink, paper
    ("DejaVu Sans", 400, "black", "white"),
    ("DejaVu Sans", 64, "white", "black"),
    ("DejaVu Sans Mono", 150, "navy", "#eee0c0"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a small run on the embedded digits."""
    directory = tmp_path_factory.mktemp("runs") / "softmax"
    settings = {"epochs": 3, "batch_size": 64, "normalize": True, "limit": 600, "save": directory}
    tm.fit(tm.softmax_regression(), tm.Optimizer("adagrad", lr=0.3), tm.load("digits"), **settings)
    return directory


@pytest.fixture(scope="module")
def probabilities(run):
    return tm.predict(checkpoint.load(run)[0], TEST.images)


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """The current directory, with files of images and labels."""
    monkeypatch.chdir(tmp_path)
    for name in ("images", "images.gz"):
        tm.idx.write(name, TEST.images)
    tm.idx.write("labels", TEST.labels.astype(np.float32))
    tm.idx.write("column", TEST.labels[:, None])
    tm.idx.write("label 10", TEST.labels + 1)
    tm.idx.write("small", TEST.images[:, ::2, ::2])
    tm.idx.write("empty", TEST.images[:0])


def describe(names, probabilities, labels=None):
    """The lines that are printed for these images."""
    lines = [f"{name}: {p.argmax()} with probability {p.max():.4f}" for name, p in zip(names, probabilities)]
    return lines if labels is None else [f"{line}; it is {label}" for line, label in zip(lines, labels)]


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_output_has_the_probabilities_of_all_images(name, run, probabilities, capsys):
    for output in ("p.npy", "p.csv"):
        assert predict(run, "--images", name, "--output", output) == 0
    assert np.array_equal(np.load("p.npy"), probabilities)
    with open("p.csv") as file:
        assert file.readline() == "0,1,2,3,4,5,6,7,8,9\n"
        assert np.array_equal(np.loadtxt(file, np.float32, delimiter=","), probabilities)
    counts = ", ".join(f"{k}: {(probabilities.argmax(1) == k).sum()}" for k in range(10))
    assert f"300 images, by predicted digit: {counts}\n" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["--images", "images", "--labels", "labels"]])
def test_evaluation_counts_and_lists_mistakes(words, run, probabilities, capsys):
    """By default on the test images of the data that the run was trained on."""
    assert predict(run, "--mistakes", 5, *words) == 0
    out, predicted = capsys.readouterr().out, probabilities.argmax(1)
    pairs = list(zip(TEST.labels.tolist(), predicted.tolist()))
    correct = sum(label == digit for label, digit in pairs)
    assert f"accuracy {correct / 300:.4f}: {correct} of 300 predictions are correct" in out
    for digit in range(10):
        row = [pairs.count((digit, other)) for other in range(10)]
        expected = [str(digit), *(str(n) if n else "·" for n in row), f"{row[digit] / sum(row):.4f}"]
        assert expected in [line.split() for line in out.splitlines()]
    wrong = [n for n in np.argsort(-probabilities.max(1), kind="stable") if predicted[n] != TEST.labels[n]]
    assert f"the most confident of {len(wrong)} mistakes\n" in out
    expected = describe([f"image {n}" for n in wrong[:5]], probabilities[wrong], TEST.labels[wrong])
    assert re.findall("image .*", out) == expected


def test_index_selects_images(run, probabilities, capsys):
    assert predict(run, "--index", 7, 299, "--figures", "new/figures") == 0
    lines, chosen = capsys.readouterr().out.splitlines(), [7, 299]
    assert lines[:2] == describe(["image 7", "image 299"], probabilities[chosen], TEST.labels[chosen])
    assert lines[-1] == "figures in new/figures: predictions.png, first-layer.png"
    assert sorted(os.listdir("new/figures")) == ["first-layer.png", "predictions.png"]


def draw_digit(digit, font, size, ink, paper):
    """Draw a digit in a picture file. Returns its name."""
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(size / 100, size / 100), dpi=100)
    figure.text(0.5, 0.5, str(digit), family=font, size=0.45 * size, color=ink, ha="center", va="center")
    figure.savefig(f"{digit}.png", facecolor=paper)
    return f"{digit}.png"


def count_correct(run, font, capsys):
    """How many of the ten digits of a font are predicted correctly."""
    pictures = [draw_digit(digit, *font) for digit in range(10)]
    assert predict(run, *pictures, "--output", "p.npy", "--figures", ".") == 0
    probabilities = tm.predict(checkpoint.load(run)[0], np.stack([read_picture(path) for path in pictures]))
    assert np.array_equal(np.load("p.npy"), probabilities) and os.path.exists("predictions.png")
    assert capsys.readouterr().out.splitlines()[:10] == describe(pictures, probabilities)
    return (probabilities.argmax(1) == range(10)).sum()


def test_lenet_of_the_embedded_digits_reads_most_of_a_font(capsys):
    """It was trained on handwriting of 8×8 pixels. Chance is 1 of 10."""
    settings = {"epochs": 4, "batch_size": 50, "augment": True, "save": "run"}
    tm.fit(tm.lenet(filters=(8, 16), hidden=64), tm.Optimizer("adagrad", lr=0.02), tm.load("digits"), **settings)
    assert count_correct("run", FONTS[0], capsys) >= 6


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TINYMNIST_DATA"), reason="$TINYMNIST_DATA names no directory with MNIST")
def test_lenet_of_mnist_reads_nine_of_ten(capsys):
    rule = tm.Optimizer("momentum", lr=0.03, momentum=0.9)
    tm.fit(tm.lenet(activation="relu"), rule, tm.load(), epochs=1, limit=20000, save="run")
    assert all(count_correct("run", font, capsys) >= 9 for font in FONTS)


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--images", "small"], "the images in small are uint8 of the shape (300, 14, 14)"),
        (["--images", "empty"], "empty contains no images"),
        (["--images", "nowhere"], "nowhere: cannot be read: No such file or directory"),
        (["--images", "images", "--labels", "column"], "column: 300 images and 300 × 1 labels"),
        (["--images", "images", "--labels", "label 10"], "label 10: there is a label 10"),
        (["--labels", "labels"], "--labels needs --images"),
        (["--index", 300], "--index must be from 0 to 299, not 300"),
        (["--index", 0, -1], "--index must be from 0 to 299, not 0 -1"),
        (["x.png", "--index", 0], "--index cannot be given with pictures"),
        (["x.png", "--data", "digits"], "give only one of pictures, --images and --data"),
        (["--data", "nonsense"], "nonsense"),
        (["--mistakes", -95], "--mistakes must be 0 or more, not -95"),
        (["--output", "p.txt"], "--output must end in .npy or .csv, not p.txt"),
        (["--output", "nowhere/p.npy"], "nowhere/p.npy: cannot be written: No such file or directory"),
        (["--show"], "--show needs --figures"),
        (["--figures", "images"], "images: File exists"),
        (["x.png"], "x.png: cannot be read"),
    ],
)
def test_wrong_input_is_refused_with_one_sentence(words, sentence, run, capsys):
    assert refused(capsys, predict(run, *words), sentence)


def test_directory_without_a_checkpoint_is_refused(capsys):
    for directory in (".", "nowhere"):
        assert refused(capsys, predict(directory), f"{directory}: ", "saved run")


def test_pictures_must_have_the_size_of_the_model(capsys):
    small = tm.Split(TEST.images[:, ::4, ::4], TEST.labels)
    model, rule = tm.softmax_regression(image=(1, 7, 7)), tm.Optimizer("sgd", lr=0.1)
    tm.Run(model, rule, tm.Data(small, small, "small", "small digits"), tm.Settings()).save("run")
    assert refused(capsys, predict("run", draw_digit(3, *FONTS[0])), "the pictures are", "(1, 28, 28)", "(N, 7, 7)")


def test_ctrl_c_ends_with_a_sentence(run, monkeypatch, capsys):
    monkeypatch.setattr(tm, "predict", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert (predict(run), capsys.readouterr().err) == (130, "stopped by Ctrl-C\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_files_are_written_before_anything_is_printed(run):
    words = [sys.executable, ROOT / "scripts" / "predict.py", run, "--output", "p.npy", "--figures", "figures"]
    with open("/dev/full", "w") as full:
        process = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert process.returncode == 2
    assert process.stderr == "standard output cannot be written: No space left on device\n"
    assert np.load("p.npy").shape == (300, 10)
    assert sorted(os.listdir("figures")) == ["confusion.png", "first-layer.png", "mistakes.png", "predictions.png"]
