"""Every figure says what it shows, and shows the numbers that it was given."""

import numpy as np
import pytest

import tinymnist as tm
from tinymnist.experiments import figures


@pytest.fixture(autouse=True)
def return_figures(monkeypatch, tmp_path):
    """Functions that draw return the figure itself, after saving it."""
    save, file = figures.save_figure, tmp_path / "figure.png"
    monkeypatch.setattr(figures, "save_figure", lambda figure, _: save(figure, file) and figure)
    yield
    if file.exists():
        assert file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size < 200_000


def read_lines(axes):
    """{label: points} of all lines in a panel; their labels are in its legend."""
    legend = axes.get_legend() or axes.figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [line.get_label() for line in axes.lines]
    return {line.get_label(): np.array(line.get_xydata()) for line in axes.lines}


def make_history(epochs, curve=True):
    """Epochs of 30 examples with losses 1 / e and 0.9 / e, and accuracies 1 - 0.3 / e and 1 - 0.2 / e."""
    history = []
    for e in range(1, epochs + 1):
        points = [[30 * e - 20, 2 / e], [30 * e - 10, 1.5 / e]] if curve else []
        history.append(tm.Epoch(e, 0.1, 1 / e, 1 - 0.3 / e, 0.9 / e, 1 - 0.2 / e, points, 1.0, []))
    return history


def test_curves_show_losses_by_examples_and_accuracies_by_epoch():
    figure = figures.draw_curves(make_history(3), 30, "a $_$ is no formula", None, untrained=(2.3, 0.1))
    left, right = figure.axes
    assert figure.get_suptitle() == "a $_$ is no formula"
    assert (left.get_xlabel(), left.get_ylabel()) == ("training examples seen", "cross-entropy")
    assert (right.get_xlabel(), right.get_ylabel()) == ("epoch", "accuracy, %")
    lines = {**read_lines(left), **read_lines(right)}
    assert lines["training, single batches"][:, 0].tolist() == [10, 20, 40, 50, 70, 80]
    assert np.allclose(lines["test"], [[0, 2.3], [30, 0.9], [60, 0.45], [90, 0.3]])
    assert left.lines[1].get_linestyle() == "None"  # dots, next to the line of training
    assert np.allclose(lines["training, during the epoch"], [[1, 70], [2, 85], [3, 90]])
    assert np.allclose(lines["test, after the epoch"], [[0, 10], [1, 80], [2, 90], [3, 100 - 20 / 3]])
    left = figures.draw_curves(make_history(2, curve=False), 30, "no batch is logged", None).axes[0]
    assert np.allclose(read_lines(left)["training, mean of each epoch"], [[15, 1], [45, 0.5]])
    assert np.allclose(read_lines(left)["test"], [[30, 0.9], [60, 0.45]])


@pytest.mark.parametrize("curve", [True, False])
def test_one_epoch_is_visible(curve):
    results = [{"label": "sgd", "rule": "sgd", "runs": [{"training": [80], "test": [81]}]}]
    curves = figures.draw_curves(make_history(1, curve), 30, "one epoch", None).axes
    comparison = figures.draw_comparison(results, "one epoch", None).axes
    for axes in (*curves, *comparison):
        (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
        assert all(line.get_marker() not in ("", "None") for line in axes.lines)
        assert all(x0 < x < x1 and y0 < y < y1 for points in read_lines(axes).values() for x, y in points)
    assert curves[0].get_xlim()[0] == 0 and curves[0].get_ylim() == pytest.approx((0, 1.05 * curves[0].dataLim.y1))
    for axes in (curves[1], *comparison):
        assert axes.get_xlim() == (0.7, 1.3) and [x for x in axes.get_xticks() if 0.7 < x < 1.3] == [1]


def test_comparison_has_the_published_colours():
    runs = [{"training": row, "test": row + 1} for row in np.arange(6.0).reshape(2, 3)]
    rules = [*tm.optim.RULES, "sgd"]
    results = [{"label": f"{rule} {n}", "rule": rule, "runs": runs} for n, rule in enumerate(rules)]
    figure = figures.draw_comparison(results, "five rules", None)
    assert figure.get_suptitle() == "five rules"
    for axes, name, mean in zip(figure.axes, ("training", "test"), (1.5, 2.5)):
        assert axes.get_title() == f"{name} set" and axes.get_ylabel() == f"{name} accuracy, %"
        assert np.allclose(read_lines(axes)["adagrad 2"], [[1, mean], [2, mean + 1], [3, mean + 2]])
        shaded = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert (shaded.min(), shaded.max()) == (mean - 1.5, mean + 3.5)
        assert [line.get_color() for line in axes.lines] == ["red", "blue", "green", "orange", "black", "red"]
        assert [line.get_linestyle() for line in axes.lines] == ["-"] * 5 + ["--"]


@pytest.mark.parametrize("n", [1, 8, 11])
def test_predictions_are_in_rows_of_eight(n):
    images, predicted = np.arange(n)[:, None, None] * np.ones((1, 28, 20)), np.arange(n)
    labels = np.where(predicted == 2, 7, predicted)
    confidence, disputed = np.full(n, 0.5), np.isin(predicted, (2, 3))  # only mistakes are marked
    (axes,) = figures.draw_predictions(images, labels, predicted, confidence, disputed, "digits", None).axes
    assert len(axes.images) == len(axes.texts) == n
    places = []
    for k, (image, text) in enumerate(zip(axes.images, axes.texts)):
        left, right, bottom, top = image.get_extent()
        assert (image.get_array() == k).all() and (right - left, bottom - top) == pytest.approx((20, 28))
        assert text.get_text() == f"{k} (50.0 %)" + (", is 7?" if k == 2 else "")
        assert (text.get_color() == "tab:red") == (k == 2) and left < text.get_position()[0] < right
        (x0, x1), (y1, y0) = axes.get_xlim(), axes.get_ylim()
        assert x0 <= left and right <= x1 and y0 < top and bottom <= y1  # all of it can be seen
        places.append((top, left))
    assert places == sorted(set(places)) and len({top for top, _ in places}) == -(-n // 8)


def test_a_picture_stands_to_the_left_of_what_the_network_sees():
    picture, image = np.full((100, 50, 3), (200, 100, 50), np.uint8), np.full((28, 28), 30, np.uint8)
    (pair,) = figures.put_side_by_side([picture], [image])
    assert pair.shape == (8 * 28, 2 * 8 * 28, 3)
    assert pair[112, 112].tolist() == [200, 100, 50] and pair[112, 300].tolist() == [225, 225, 225]  # 255 − 30


@pytest.mark.parametrize("mistakes", [0, 7])
def test_confusion_matrix_colours_only_mistakes(mistakes):
    matrix = np.diag(np.arange(90, 100))
    matrix[4, 9] = mistakes
    figure = figures.draw_confusion(matrix, None)
    axes, colours = figure.axes[0], figure.axes[0].images[0].get_array()
    assert figure.get_suptitle() == f"confusion matrix: 945 of {945 + mistakes} predictions are correct"
    assert axes.get_xlabel() == "predicted digit" and axes.get_ylabel() == "true digit"
    assert axes.get_xticks().tolist() == axes.get_yticks().tolist() == list(range(10))
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written[9, 4] == str(mistakes) and written[4, 9] == "0" and written[3, 3] == "93"
    assert colours[4, 9] == colours.sum() == mistakes


@pytest.mark.parametrize(
    "model, shape, title",
    [
        (tm.mlp(hidden=(20,)), (20, 28, 28), "of each unit"),
        (tm.lenet(filters=(6, 3)), (6, 5, 5), "of each filter"),
        (tm.softmax_regression(image=(1, 8, 9)), (10, 8, 9), "of each digit"),
    ],
)
def test_first_layer_is_a_picture_of_each_output(model, shape, title):
    weights = next(iter(model.initialize(1).parameters.values())).asnumpy().reshape(shape)
    figure = figures.draw_first_layer(model, None)
    pictures, largest = figure.axes[0].images, np.abs(weights).max()
    assert np.array_equal([picture.get_array() for picture in pictures], weights) and title in figure.get_suptitle()
    assert pictures[0].get_clim() == (-largest, largest)  # 0 is white


def test_figure_is_opened_only_on_a_display(monkeypatch, tmp_path, capsys):
    opened = []
    monkeypatch.setattr(figures.webbrowser, "open", lambda where: opened.append(where) or True)
    monkeypatch.setattr(figures.sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for display, urls in (("", []), (":0", [(tmp_path / "figure.png").as_uri()])):
        monkeypatch.setenv("DISPLAY", display)
        figures.open_figure(tmp_path / "figure.png")
        assert opened == urls and ("there is no display" in capsys.readouterr().err) == (not urls)
