"""Pictures of every kind are brought into MNIST's form; other files end in a sentence."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tinymnist.datasets.load import load
from tinymnist.datasets.pictures import read_picture, to_mnist
from tinymnist.idx import DataError


def make_seven(side=280, thick=24):
    """A 7, bright on dark, (side, side)"""
    y, x = np.mgrid[:side, :side] / side * 280
    bar = (abs(y - 60) < thick / 2) & (x > 80) & (x < 200)
    stem = (abs(x - 200 + (y - 60) / 2) < thick / 2) & (y > 60) & (y < 240)
    return 255 * (bar | stem).astype(np.uint8)


SEVEN = make_seven()


@pytest.fixture
def read(tmp_path):
    """read(pixels) writes pixels (H, W) or (H, W, 2 to 4) to a file and reads it."""

    def read(pixels, kind="png", **options):
        Image.fromarray(pixels).save(tmp_path / "picture", kind, **options)
        return read_picture(tmp_path / "picture")

    return read


def centre(picture):
    y, x = np.mgrid[:28, :28]
    return (picture * y).sum() / picture.sum(), (picture * x).sum() / picture.sum()


def box(picture):
    rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
    return np.ptp(rows) + 1, np.ptp(columns) + 1


def close(a, b, mean):
    """Equal but for a mean difference (of 255) and for one pixel in the place, which depends on rounding"""
    shifted = [np.roll(b.astype(int), (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return min(np.abs(a - c).mean() for c in shifted) < mean


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (100, 30), (30, 100), (600, 600), (1, 1), (5, 1), (1, 9)])
def test_the_digit_fills_the_box_and_its_mass_is_centred(shape):
    grey = np.zeros((shape[0] + 7, shape[1] + 12))
    grey[3 : 3 + shape[0], 5 : 5 + shape[1]] = 3.7
    picture = to_mnist(grey)
    assert (picture.shape, picture.dtype, picture.max()) == ((28, 28), np.uint8, 255)
    assert box(picture) == tuple(max(1, round(20 * n / max(shape))) for n in shape)  # in proportion
    assert all(abs(where - 14) <= 0.5 for where in centre(picture))


def test_the_embedded_digits_are_in_mnists_form_and_stay_as_they_are():
    images = load("digits").test.images
    assert all(abs(where - 14) < 1 for image in images for where in centre(image))
    for image in images[:50]:
        image = np.where(image > 26, image, 0)  # the box is where the ink is above a tenth
        assert max(box(image)) < 20 or close(to_mnist(image), image, mean=3)


def test_edges_are_smooth_and_strokes_keep_their_thickness():
    for side in (40, 200, 280, 1000):
        picture = to_mnist(make_seven(side))
        grey = ((picture > 25) & (picture < 230)).sum() / (picture > 25).sum()
        assert 0.1 < grey < 0.7 and 0.09 < picture.mean() / 255 < 0.12
        assert side == 40 or close(picture, to_mnist(SEVEN), mean=2)  # 40 is too coarse to compare
    assert to_mnist(make_seven(1120, thick=2)).max() == 255  # a thin stroke is as bright
    for side, level in ((14, 24.27), (20, 22.65)):  # enlarged, by 2.2 and 1.5
        assert to_mnist(make_seven(side)).mean() == pytest.approx(level, abs=0.1)


COLOURS = [(255, 0), (0, 255), (10, 200), (120, 60), (90, 130)]  # of ink and paper
COLOURS += [([200, 0, 0], [255] * 3), ([0, 0, 255], [0, 90, 0]), ([40, 0, 0], [0] * 3)]


@pytest.mark.parametrize("side", [20, 28, 64, 300, 1200])
@pytest.mark.parametrize("ink, paper", COLOURS, ids=str)
def test_size_and_colours_make_no_difference(read, side, ink, paper):
    seven = make_seven(side)
    pixels = np.where(seven[:, :, None], ink, paper).astype(np.uint8).squeeze()
    assert close(read(pixels), to_mnist(seven), mean=2)


@pytest.mark.parametrize("colour", [(0,), (255,), (0, 0, 0), (255, 255, 255), (200, 10, 90)])
def test_ink_on_a_transparent_background(read, colour):
    pixels = np.full((280, 280, len(colour) + 1), (*colour, 0), np.uint8)
    pixels[:, :, -1] = SEVEN  # the colour is the same everywhere; only alpha has the digit
    assert close(read(pixels), to_mnist(SEVEN), mean=3)


@pytest.mark.parametrize(
    "ink, paper, noise, kind",
    [(47, 200, 6, np.uint8), (65535, 0, 200, np.uint16), (0, 65535, 200, np.uint16), (9000, 40000, 200, np.uint16)],
)
def test_noise_is_not_ink_and_grey_levels_may_have_sixteen_bits(read, ink, paper, noise, kind):
    levels = np.where(SEVEN, ink, paper) + np.random.RandomState(0).normal(0, noise, SEVEN.shape)
    assert close(read(levels.clip(0, np.iinfo(kind).max).astype(kind)), to_mnist(SEVEN), mean=2)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_photograph_is_rotated_as_its_exif_block_says(read, kind):
    for orientation, turns in ((1, 0), (6, 1), (3, 2), (8, 3)):  # 6: rotate by 90° clockwise
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert close(read(np.rot90(SEVEN, turns).copy(), kind, exif=exif), to_mnist(SEVEN), mean=2)
    for damaged in (b"MM", b"Exif\0\0MM\0*\0", b"Exif\0\0nonsense"):
        assert close(read(SEVEN, kind, exif=damaged), to_mnist(SEVEN), mean=2)


def test_other_files_are_refused(tmp_path):
    good, path = io.BytesIO(), tmp_path / "picture"
    Image.fromarray(SEVEN).save(good, "png")
    for content in (b"", b"hello", good.getvalue()[:20], good.getvalue()[:200], b"\xff\xd8\xff\xe0" + b"x" * 99):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"^{path}: is not a picture that can be read; expected PNG or JPEG$"):
            read_picture(path)


def test_blank_pictures_are_refused(read):
    for pixels in (np.full((9, 9), 77), np.full((9, 9, 4), 0), np.full((1, 1, 3), 255)):
        with pytest.raises(DataError, match="picture: is blank; no ink stands out from the paper"):
            read(pixels.astype(np.uint8))
    for pixels in (np.zeros((5, 5)), np.zeros((0, 5)), np.ones((1, 1)), np.zeros(7)):
        with pytest.raises(DataError, match=r"^is blank; expected a digit in its"):
            to_mnist(pixels)


PAGE = 255 - 220 * (SEVEN / 255.0)
Y, X = np.mgrid[:280, :280]
LINES = (Y % 40 < 2) | (X < 0)
KINDS = {
    "lined paper": np.where(LINES, np.minimum(PAGE, 150), PAGE),
    "squared paper": np.where(LINES | (X % 25 == 0), np.minimum(PAGE, 170), PAGE),
    "a black frame": np.where((np.minimum(X, Y) < 8) | (np.maximum(X, Y) > 271), 0, PAGE),
    "a sheet on a table": np.where((np.minimum(X, Y) < 30) | (np.maximum(X, Y) > 249), 120, PAGE),
    "light from one side": PAGE * (0.35 + 0.65 * X / 280),
    "a soft shadow": PAGE * (1 - 0.5 / (1 + np.exp((Y - X / 2 - 60) / 8))),
    "specks": np.where((X // 4 % 23 == 3) & (Y // 4 % 31 == 5), 40, PAGE),
    "camera noise": PAGE * 0.8 + np.random.RandomState(0).normal(0, 12, PAGE.shape),
    "dark paper": 255 - np.where(LINES, np.minimum(PAGE, 150), PAGE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_paper_and_light_are_not_ink(read, kind):
    mean = 8 if "shadow" in kind else 3  # ink is fainter in a shadow
    assert close(read(KINDS[kind].clip(0, 255).astype(np.uint8)), to_mnist(SEVEN), mean)


def test_pictures_as_small_as_mnists_images_are_taken_as_they_are(read):
    for image in load("digits").test.images[:100]:
        assert close(read(image), to_mnist(image), mean=0.5) and close(read(255 - image), to_mnist(image), mean=0.5)


def test_a_digit_cut_at_its_ink_is_read(read):
    rows, columns = np.flatnonzero(SEVEN.any(1)), np.flatnonzero(SEVEN.any(0))
    cut = 255 - SEVEN[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert close(read(cut), to_mnist(SEVEN), mean=3)


def test_several_digits_are_refused(read):
    with pytest.raises(DataError, match="picture: holds several digits; expected one"):
        read(np.hstack([PAGE, PAGE]).astype(np.uint8))


@pytest.mark.parametrize("kind", ["a black frame", "a sheet on a table", "a soft shadow"])
def test_pictures_without_a_digit_are_refused(read, kind):
    empty = np.where(SEVEN, 0.0, KINDS[kind]).clip(0, 255)
    empty[SEVEN > 0] = np.interp(np.flatnonzero(SEVEN), np.flatnonzero(SEVEN == 0), KINDS[kind][SEVEN == 0])
    with pytest.raises(DataError, match=r"picture: (is blank|holds no digit)"):
        read(empty.astype(np.uint8))


def test_postscript_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("Ghostscript was started"))
    path = tmp_path / "seven.png"
    Image.fromarray(SEVEN).save(path, "eps")
    with pytest.raises(DataError, match="is not a picture that can be read; expected PNG or JPEG"):
        read_picture(path)


def make_page(digit):
    """An embedded digit, 140 of 300 pixels wide, on white paper"""
    ink = np.zeros((300, 300))
    ink[80:220, 80:220] = np.asarray(Image.fromarray(digit).resize((140, 140), Image.BICUBIC)) / 255
    return 255 - 225 * ink


def turn(page, degrees):
    return np.asarray(Image.fromarray(page.astype(np.uint8)).rotate(degrees, Image.BICUBIC, fillcolor=int(page[0, 0])))


ROW, COLUMN = np.mgrid[:300, :300]
OUTER = np.maximum(abs(ROW - 149.5), abs(COLUMN - 149.5))  # the distance from the middle
NOISE = np.random.RandomState(0).normal(0, 1, (300, 300))
DRAWN = {
    "faint pencil": lambda page: 255 - (255 - page) * 30 / 225,
    "lined paper": lambda page: np.where(ROW % 40 == 20, np.minimum(page, 190), page),
    "strong squares, 50 pixels wide": lambda page: np.where(
        (ROW % 50 < 2) | (COLUMN % 50 < 2), np.minimum(page, 110), page
    ),
    "a black frame": lambda page: np.where(OUTER > 147, 0, page),
    "a box around the digit": lambda page: np.where(abs(OUTER - 108) < 2, 20, page),
    "a tilted box": lambda page: turn(np.where(abs(OUTER - 108) < 2, 20, page), 3),
    "a sheet on a table": lambda page: np.where(OUTER > 110, 120, page),
    "a marker on a sheet": lambda page: np.where(OUTER > 110, 120, ndimage.grey_erosion(page, 21)),
    "a tilted sheet": lambda page: turn(np.where(OUTER > 110, 120, page), 7),
    "light from one side": lambda page: page * (1 - 0.6 * COLUMN / 300),
    "the hard edge of a shadow": lambda page: page * np.where(0.7 * COLUMN + ROW > 250, 0.5, 1) + 3 * NOISE,
    "noise": lambda page: page * 0.9 + 8 * NOISE,
    "a speck": lambda page: np.where((abs(ROW - 12) < 3) & (abs(COLUMN - 12) < 3), 40, page),
    "lines, tilted": lambda page: turn(np.where(ROW % 30 > 27, np.minimum(page, 130), page), 5),
    "squares, tilted": lambda page: turn(np.where(np.maximum(ROW % 30, COLUMN % 30) > 27, page - 75, page), -3),
    "a thin pen": lambda page: ndimage.grey_dilation(page, 5),
    "a marker": lambda page: ndimage.grey_erosion(page, 13),
    "a thick marker": lambda page: ndimage.grey_erosion(page, 25),
    "chalk": lambda page: np.stack([30 + 0.9 * (255 - page), 70 + 0.7 * (255 - page), 50 + 0.8 * (255 - page)], 2),
    "a screen, photographed": lambda page: 30 + 0.15 * COLUMN + 9 * np.sin(2 * COLUMN + ROW / 3) + 0.7 * (255 - page),
    "noise in colour": lambda page: page[:, :, None] * 0.9 + 15 * np.random.RandomState(0).normal(0, 1, (300, 300, 3)),
    "cut at the ink": lambda page: page[np.ix_((page < 200).any(1), (page < 200).any(0))],
}


# The mean grey level of each kind, measured once: it changes with every threshold that decides what is ink.
LEVELS = dict(zip(DRAWN, [
    32.83, 32.25, 29.61, 32.41, 31.75, 31.31, 32.41, 47.95, 31.99, 32.36, 30.69, 32.01, 32.41, 30.31, 28.26, 25.71,
    40.68, 46.39, 32.34, 31.98, 32.44, 32.12,
]))  # fmt: skip


@pytest.mark.parametrize("kind", DRAWN)
def test_the_embedded_digits_are_found_on_every_kind_of_paper(read, kind):
    """17 of 20 pictures correlate with those of the digits alone. Faint ends of strokes are lost in the others."""
    found, levels = [], []
    for image in load("digits").test.images[:20]:
        page = make_page(image)
        try:
            picture = read(DRAWN[kind](page).clip(0, 255).astype(np.uint8))
        except DataError:
            continue
        levels.append(picture.mean())
        plain = to_mnist(255 - page)
        shifted = [np.roll(picture, (i, j), (0, 1)).ravel() for i in (-1, 0, 1) for j in (-1, 0, 1)]
        found.append(max(np.corrcoef(plain.ravel(), one)[0, 1] for one in shifted))
    assert sum(r > 0.75 for r in found) >= 17
    assert np.mean(levels) == pytest.approx(LEVELS[kind], abs=0.1)


def test_digits_that_touch_thick_strokes_and_blank_tilted_sheets_are_refused(read):
    images, blank = load("digits").test.images[:6], np.full((300, 300), 255.0)
    pages = [make_page(image) for image in images]
    for a, b in zip(pages, pages[1:]):
        with pytest.raises(DataError, match="holds several digits"):
            read(np.minimum(np.roll(a, -40, 1), np.roll(b, 40, 1)).clip(0, 255).astype(np.uint8))
    for degrees in range(3, 30, 3):
        with pytest.raises(DataError, match=r"is blank|holds no digit|holds several digits"):
            read(turn(np.where(OUTER > 110, 120, blank), degrees))
    with pytest.raises(DataError, match="strokes are too thick"):
        read(np.where((abs(ROW - 150) < 50) & (abs(COLUMN - 150) < 35), 30, 255).astype(np.uint8))
