"""predict.py classifies images, pictures and IDX files; what it prints is what the model predicts."""

import contextlib
import csv
import os
import re
import shlex

import numpy as np
import pytest
from commands import command, refused
from matplotlib.figure import Figure
from PIL import Image

import tinymnist as tm
from tinymnist.datasets.pictures import read_picture
from tinymnist.datasets.published import DISPUTED
from tinymnist.runtime import checkpoint

predict = command("predict")
needs_mnist = pytest.mark.skipif(not os.environ.get("TINYMNIST_DATA"), reason="$TINYMNIST_DATA does not name MNIST")
TEST = tm.load("digits").test
FONTS = [  # family, pixels, ink, paper
    ("DejaVu Sans", 400, "black", "white"),
    ("DejaVu Sans", 64, "white", "black"),
    ("DejaVu Sans Mono", 150, "navy", "#eee0c0"),
]


@pytest.fixture(scope="module", autouse=True)
def probabilities(tmp_path_factory):
    """What a small run predicts for the test images. The working directory has the run, and files of images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("predict"))
        for name, array in {"images": TEST.images, "images.gz": TEST.images, "labels": TEST.labels * 1.0}.items():
            tm.idx.write(name, array)
        settings = {"epochs": 3, "batch_size": 64, "normalize": True, "limit": 600, "save": "run"}
        tm.fit(tm.softmax_regression(), tm.Optimizer("adagrad", lr=0.3), tm.load("digits"), **settings)
        yield tm.predict(checkpoint.load("run")[0], TEST.images)


def describe(names, probabilities, labels=None):
    """The lines that are printed for these images."""
    lines = [f"{name}: {p.argmax()} with probability {p.max():.4f}" for name, p in zip(names, probabilities)]
    return lines if labels is None else [f"{line}; it is {label}" for line, label in zip(lines, labels)]


def test_output_has_the_probabilities_of_all_images(probabilities, capsys):
    assert predict("run --images images --output p.npy") == predict("run --images images.gz --output p.csv") == 0
    assert np.array_equal(np.load("p.npy"), probabilities)
    with open("p.csv") as file:
        assert file.readline() == "0,1,2,3,4,5,6,7,8,9\n"
        assert np.array_equal(np.loadtxt(file, np.float32, delimiter=","), probabilities)
    counts = ", ".join(f"{k}: {(probabilities.argmax(1) == k).sum()}" for k in range(10))
    assert capsys.readouterr().out.count(f"300 images, by predicted digit: {counts}\n") == 2


@pytest.mark.parametrize("words", ["", "--images images --labels labels"])
def test_evaluation_counts_and_lists_mistakes(words, probabilities, capsys):
    """By default on the test images of the data that the run was trained on."""
    assert predict("run --mistakes 5", words) == 0
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


def test_disputed_labels_of_mnist_are_marked(capsys):
    """Images that have the labels of MNIST's test images at the disputed places"""
    numbers, rows = list(DISPUTED), np.arange(10_000) % 300
    labels = TEST.labels[rows]
    labels[numbers] = list(DISPUTED.values())
    tm.idx.write("many", TEST.images[rows])
    for names, path in ((numbers, "labels-a"), ([], "labels-b")):  # in the second file, one label is another
        tm.idx.write(path, labels)
        assert predict("run --mistakes 10000 --figures figures --images many --labels", path) == 0
        out = capsys.readouterr().out
        marked = {int(n) for n in re.findall(r"image (\d+): .* it is \d\?", out)}
        predicted = {int(n) for n in re.findall(r"image (\d+): ", out)}
        assert marked == predicted & set(names) and bool(marked) == bool(names)
        assert (f"{len(marked)} have one of MNIST's 15 disputed labels, marked by ?" in out) == bool(names)
        labels[numbers[0]] = 7


def test_index_selects_images(probabilities, capsys):
    assert predict("run --index 7 299 --figures new/figures") == 0
    lines, chosen = capsys.readouterr().out.splitlines(), [7, 299]
    assert lines[:2] == describe(["image 7", "image 299"], probabilities[chosen], TEST.labels[chosen])
    assert lines[-1] == "figures in new/figures: predictions.png, first-layer.png"
    assert sorted(os.listdir("new/figures")) == ["first-layer.png", "predictions.png"]


def draw_digit(digit, font, size, ink, paper):
    """Draw a digit in a picture file. Returns its name."""
    figure = Figure(figsize=(size / 100, size / 100), dpi=100)
    figure.text(0.5, 0.5, str(digit), family=font, size=0.45 * size, color=ink, ha="center", va="center")
    figure.savefig(f"{digit}.png", facecolor=paper)
    return f"{digit}.png"


@pytest.mark.parametrize("mnist", [False, pytest.param(True, marks=[pytest.mark.slow, needs_mnist])])
def test_lenet_reads_drawn_digits(mnist, capsys):
    """Nine of ten if it was trained on MNIST, six if on handwriting of 8×8 pixels, the embedded digits"""
    model, rule = tm.lenet(activation="relu"), tm.Optimizer("momentum", lr=0.03, momentum=0.9)
    settings = {"epochs": 1, "limit": 20_000} if mnist else {"epochs": 4, "augment": True}
    tm.fit(model, rule, tm.load(None if mnist else "digits"), save=f"lenet-{mnist}", **settings)
    for font in FONTS:
        pictures = [draw_digit(digit, *font) for digit in range(10)]
        assert predict(f"lenet-{mnist}", *pictures, "--output p.npy --figures font") == 0
        probabilities = tm.predict(model, np.stack([read_picture(path) for path in pictures]))
        assert np.array_equal(np.load("p.npy"), probabilities) and os.path.exists("font/predictions.png")
        assert capsys.readouterr().out.splitlines()[:10] == describe(pictures, probabilities)
        assert (probabilities.argmax(1) == range(10)).sum() >= (9 if mnist else 6)


def test_pictures_must_have_the_size_of_the_model(capsys):
    small = tm.Split(TEST.images[:, ::4, ::4], TEST.labels)
    model, rule = tm.softmax_regression(image=(1, 7, 7)), tm.Optimizer("sgd", lr=0.1)
    tm.Run(model, rule, tm.Data(small, small, "small", "small digits"), tm.Settings()).save("7x7")
    assert refused(capsys, predict("7x7", draw_digit(3, *FONTS[0])), "the pictures are", "(1, 28, 28)", "(N, 7, 7)")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_files_are_written_before_anything_is_printed(capsys):
    with open("/dev/full", "w") as full, contextlib.redirect_stdout(full):
        status = predict("run --output all.npy --figures figures")
    assert refused(capsys, status, "standard output cannot be written: No space left on device")
    assert np.load("all.npy").shape == (300, 10)
    assert sorted(os.listdir("figures")) == ["confusion.png", "first-layer.png", "mistakes.png", "predictions.png"]


def test_a_picture_that_cannot_be_read_does_not_discard_the_others(probabilities, capsys):
    Image.new("L", (30, 30), 255).save("blank.png")
    for n in (0, 1):
        Image.fromarray(255 - TEST.images[n]).save(f"{n}.png")
    assert predict("run 0.png blank.png 1.png nowhere.png --output some.npy") == 2
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == [
        "0.png",
        "1.png",
        "probabilities, (2, 10), in some.npy",
    ]
    assert err.startswith("blank.png: is blank") and "\nnowhere.png: cannot be read" in err and err.count("\n") == 2
    assert np.load("some.npy").shape == (2, 10)
    assert predict("run blank.png") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_csv_names_the_pictures_and_any_byte_may_be_in_a_name(probabilities, capsysbinary):
    names = ["a,b.png", os.fsdecode(b"\xff.png"), os.fsdecode(b"\xfe.png")]
    for n, name in enumerate(names[:2]):
        Image.fromarray(255 - TEST.images[n]).save(name)
    assert predict("run", *map(shlex.quote, names), "--output named.csv --figures named") == 2
    out, err = capsysbinary.readouterr()
    assert re.findall(rb"(?m)^(.*): \d with", out) == [b"a,b.png", rb"\xff.png"]
    assert err.startswith(rb"\xfe.png: cannot be read") and err.count(b"\n") == 1
    with open("named.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["picture", *map(str, range(10))] and [row[0] for row in rows] == ["a,b.png", r"\xff.png"]
    images = np.stack([read_picture(name) for name in names[:2]])
    assert np.array_equal(
        np.array([row[1:] for row in rows], np.float32), tm.predict(checkpoint.load("run")[0], images)
    )


def test_figures_show_each_picture_next_to_what_the_network_sees(monkeypatch):
    Image.fromarray(np.full((50, 80, 3), (250, 240, 0), np.uint8)).save("yellow.png")
    with Image.open("yellow.png") as picture:
        picture.paste(Image.fromarray(255 - TEST.images[3]).convert("RGB"), (26, 11))
        picture.save("yellow.png")
    drawn = []
    monkeypatch.setattr("tinymnist.experiments.figures.save_figure", lambda figure, path: drawn.append(figure) or path)
    assert predict("run yellow.png --figures figures") == 0
    (pair,), (text,) = drawn[0].axes[0].images, drawn[0].axes[0].texts
    pixels, seen = np.asarray(pair.get_array()), read_picture("yellow.png")
    left, right = pixels[:, : pixels.shape[1] // 2], pixels[:, pixels.shape[1] // 2 :]
    assert (left[112, 10] == (250, 240, 0)).all() and (right[4::8, 4::8] == 255 - seen[:, :, None]).all()
    p = tm.predict(checkpoint.load("run")[0], seen[None])[0]
    assert text.get_text() == f"{p.argmax()} ({100 * p.max():.1f} %)"


def test_the_training_files_of_a_data_set_are_not_needed(capsys):
    os.mkdir("only-test")
    tm.idx.write("only-test/t10k-images-idx3-ubyte", TEST.images)
    tm.idx.write("only-test/t10k-labels-idx1-ubyte", TEST.labels)
    assert predict("run --data only-test") == predict("run") == 0
    first, second = capsys.readouterr().out.split("accuracy ")[1:]
    assert first == second
