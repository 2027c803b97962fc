"""Pictures of every kind are brought into MNIST's form; other files end in a sentence."""

import io

import numpy as np
import pytest
from PIL import Image

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
    return np.abs(a.astype(int) - b).mean() < mean  # of 255


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


COLOURS = [(255, 0), (0, 255), (10, 200), (120, 60), (90, 130)]  # of ink and paper
COLOURS += [([200, 0, 0], [255] * 3), ([0, 0, 255], [0, 90, 0]), ([40, 0, 0], [0] * 3)]


@pytest.mark.parametrize("side", [20, 28, 64, 300, 1200])
@pytest.mark.parametrize("ink, paper", COLOURS, ids=str)
def test_size_and_colours_make_no_difference(read, side, ink, paper):
    seven = make_seven(side)
    pixels = np.where(seven[:, :, None], ink, paper).astype(np.uint8).squeeze()
    assert close(read(pixels), to_mnist(seven), mean=1)


@pytest.mark.parametrize("colour", [(0,), (255,), (0, 0, 0), (255, 255, 255), (200, 10, 90)])
def test_ink_on_a_transparent_background(read, colour):
    pixels = np.full((280, 280, len(colour) + 1), (*colour, 0), np.uint8)
    pixels[:, :, -1] = SEVEN  # the colour is the same everywhere; only alpha has the digit
    assert close(read(pixels), to_mnist(SEVEN), mean=1)


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
        with pytest.raises(DataError, match="picture: is blank; nothing in it differs from its border"):
            read(pixels.astype(np.uint8))
    for pixels in (np.zeros((5, 5)), np.zeros((0, 5)), np.ones((1, 1)), np.zeros(7)):
        with pytest.raises(DataError, match=r"^the picture: is blank"):
            to_mnist(pixels)
