"""Every figure says what it shows, and shows the numbers that it was given."""

import numpy as np
import pytest

import tinymnist as tm
from tinymnist.experiments import figures as plot
from tinymnist.runtime.run import Epoch

pytest.importorskip("matplotlib", reason="figures are drawn by matplotlib")


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """drawn(function, …) -> the figure that it would have saved, after saving it"""
    kept, save = [], plot.saved
    monkeypatch.setattr(plot, "saved", lambda figure, path: kept.append(figure) or save(figure, path))

    def drawn(function, *arguments, **options):
        path = function(*arguments, path=tmp_path / "figure.png", **options)
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 200_000
        return kept[-1]

    return drawn


def texts(figure):
    legends = [t.get_text() for axes in figure.axes if axes.get_legend() for t in axes.get_legend().get_texts()]
    return legends, figure.get_suptitle()


def lines(axes):
    return {line.get_label(): np.array(line.get_xydata()) for line in axes.lines}


def history(epochs=3, curve=True):
    def epoch(e):
        points = [[30 * (e - 1) + n, loss / e] for n, loss in ((10, 2.0), (20, 1.5))] if curve else []
        return Epoch(e, 0.1, 1.0 / e, 1 - 0.3 / e, 0.9 / e, 1 - 0.2 / e, points, 1.0, [])

    return [epoch(e) for e in range(1, epochs + 1)]


def test_curves(drawn):
    figure = drawn(plot.curves, history(), 30, "a title", untrained=(2.3, 0.1))
    left, right = figure.axes
    assert texts(figure) == (
        ["training, single batches", "test", "training, as they were seen", "test, after the epoch"],
        "a title",
    )
    assert left.get_xlabel() == "training examples seen" and left.get_ylabel().startswith("cross-entropy")
    assert right.get_xlabel() == "epoch" and right.get_ylabel() == "accuracy, %"
    assert lines(left)["training, single batches"][:, 0].tolist() == [10, 20, 40, 50, 70, 80]
    test = next(line for line in left.lines if line.get_label() == "test")
    assert (test.get_marker(), test.get_linestyle()) == ("o", "None")  # dots beside the line of training
    assert np.allclose(test.get_xydata(), [[0, 2.3], [30, 0.9], [60, 0.45], [90, 0.3]])
    assert np.allclose(lines(right)["test, after the epoch"], [[0, 10], [1, 80], [2, 90], [3, 100 - 20 / 3]])


def test_curves_of_epochs_shorter_than_the_log_interval(drawn):
    left = drawn(plot.curves, history(2, curve=False), 30, "a title").axes[0]
    assert np.allclose(lines(left)["training, mean of the epoch"], [[15, 1], [45, 0.5]])
    assert np.allclose(lines(left)["test"], [[30, 0.9], [60, 0.45]])


def test_comparison_in_the_published_colours(drawn):
    values = np.arange(6.0).reshape(2, 3)
    rules = [(rule, rule, values, values + 1) for rule in tm.optim.RULES] + [("sgd, lr 1", "sgd", values, values)]
    figure = drawn(plot.comparison, rules, "five rules")
    for axes, name, more in zip(figure.axes, ("training", "test"), (0, 1)):
        assert axes.get_title() == f"{name} set" and axes.get_ylabel() == f"{name} accuracy, %"
        assert np.allclose(lines(axes)["adagrad"], [[1, 1.5 + more], [2, 2.5 + more], [3, 3.5 + more]])
    first = {line.get_label(): (line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert [first[rule][0] for rule in tm.optim.RULES] == ["red", "blue", "green", "orange", "black"]
    assert first["sgd"] == ("red", "-") and first["sgd, lr 1"] == ("red", "--")
    assert texts(figure) == ([*tm.optim.RULES, "sgd, lr 1"], "five rules")


@pytest.mark.parametrize("n", [1, 6, 8, 11])
def test_grid(drawn, n):
    images = np.arange(n)[:, None, None] * np.ones((1, 28, 20))
    figure = drawn(plot.grid, images, [f"digit {k}" for k in range(n)], [k == 2 for k in range(n)], "digits")
    (axes,) = figure.axes
    assert len(axes.images) == len(axes.texts) == n
    places = []
    for k, (image, text) in enumerate(zip(axes.images, axes.texts)):
        left, right, bottom, top = image.get_extent()
        assert (image.get_array() == k).all() and (right - left, bottom - top) == pytest.approx((20, 28))
        assert text.get_text() == f"digit {k}" and left < text.get_position()[0] < right
        assert (text.get_color() == "tab:red") == (k == 2)
        places.append((top, left))
    assert places == sorted(set(places)) and len({top for top, _ in places}) == -(-n // 8)


@pytest.mark.parametrize("mistakes", [0, 7])
def test_confusion(drawn, mistakes):
    matrix = np.diag(np.arange(90, 100))
    matrix[4, 9] = mistakes
    axes = drawn(plot.confusion, matrix, "what was read").axes[0]
    assert axes.get_xlabel() == "predicted digit" and axes.get_ylabel() == "true digit"
    written = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    assert written[9, 4] == str(mistakes) and written[4, 9] == "0" and written[3, 3] == "93"
    assert axes.images[0].get_array()[4, 9] == mistakes and axes.images[0].get_array()[3, 3] == 0


@pytest.mark.parametrize(
    "model, count, size, title",
    [
        (tm.softmax_regression(), 10, (28, 28), "a picture per digit"),
        (tm.mlp(hidden=(20,)), 20, (28, 28), "a picture per unit"),
        (tm.lenet(filters=(6, 3)), 6, (5, 5), "the 6 filters"),
        (tm.softmax_regression(image=(1, 8, 9)), 10, (8, 9), "a picture per digit"),
    ],
    ids=["softmax", "mlp", "lenet", "another size"],
)
def test_first_layer(drawn, model, count, size, title):
    weights = next(iter(model.initialize(1).parameters.values())).asnumpy().reshape(count, *size)
    figure = drawn(plot.first_layer, model)
    pictures = figure.axes[0].images
    assert np.array_equal(np.stack([p.get_array() for p in pictures]), weights) and title in texts(figure)[1]
    low, high = figure.axes[0].images[0].get_clim()
    assert low == -high == -np.abs(weights).max()  # 0 is white


def test_show_where_there_is_no_display(monkeypatch, tmp_path, capsys):
    opened = []
    monkeypatch.setattr(plot.webbrowser, "open", lambda where: opened.append(where) or True)
    monkeypatch.setattr(plot.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    plot.show(tmp_path / "figure.png")
    assert not opened and "no display" in capsys.readouterr().err
    monkeypatch.setenv("DISPLAY", ":0")
    plot.show(tmp_path / "figure.png")
    assert opened == [(tmp_path / "figure.png").as_uri()] and not capsys.readouterr().err
