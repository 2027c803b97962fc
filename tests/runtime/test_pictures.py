"""Pictures of every kind end in MNIST's form; what is no picture ends in a sentence."""

import io

import numpy as np
import pytest
from PIL import Image

from tinymnist.datasets.load import load
from tinymnist.datasets.pictures import read_picture, to_mnist
from tinymnist.idx import DataError


def png(pixels):
    """(H, W, 1 to 4) uint8 -> the bytes of a PNG file: grey, grey and alpha, colour, colour and alpha."""
    stream = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(stream, "png")
    return stream.getvalue()


def seven(side=280, thick=24):
    """A 7, bright on dark, (side, side)."""
    y, x = np.mgrid[:side, :side] / side * 280
    bar = (abs(y - 60) < thick / 2) & (x > 80) & (x < 200)
    stem = (abs(x - 200 + (y - 60) / 2) < thick / 2) & (y > 60) & (y < 240)
    return 255 * (bar | stem).astype(np.uint8)


@pytest.fixture
def read(tmp_path):
    def read(pixels, **options):
        (tmp_path / "picture.png").write_bytes(png(pixels if pixels.ndim == 3 else pixels[:, :, None], **options))
        return read_picture(tmp_path / "picture.png")

    return read


def centre(picture):
    y, x = np.mgrid[:28, :28]
    return (picture * y).sum() / picture.sum(), (picture * x).sum() / picture.sum()


def box(picture):
    rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
    return np.ptp(rows) + 1, np.ptp(columns) + 1


def near(a, b, mean=2.0):
    return np.abs(a.astype(int) - b).mean() < mean  # of 255


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (100, 30), (30, 100), (600, 600), (1, 1), (5, 1), (1, 9)])
def test_the_form(shape):
    grey = np.zeros((shape[0] + 7, shape[1] + 12))
    grey[3 : 3 + shape[0], 5 : 5 + shape[1]] = 3.7
    picture = to_mnist(grey)
    assert picture.shape == (28, 28) and picture.dtype == np.uint8 and picture.max() == 255
    longest = max(shape)
    assert box(picture) == tuple(max(1, round(20 * n / longest)) for n in shape)  # the box, proportions kept
    assert all(abs(where - 14) <= 0.5 for where in centre(picture))  # the centre of mass


def test_embedded_and_real_digits_lie_alike():
    digits = load("digits").test.images
    assert all(abs(where - 14) < 1 for image in digits for where in centre(image))


def test_a_digit_in_mnists_form_stays_as_it_is():
    for image in load("digits").test.images[:50]:
        image = np.where(image > 26, image, 0)  # the box is where the ink is above a tenth
        if max(box(image)) == 20:
            assert near(to_mnist(image), image, mean=3)


def test_edges_are_smooth_and_strokes_are_kept():
    for side in (40, 200, 280, 1000):
        picture = to_mnist(seven(side))
        grey = ((picture > 25) & (picture < 230)).sum() / (picture > 25).sum()
        assert 0.1 < grey < 0.7 and 0.09 < picture.mean() / 255 < 0.12
        assert side == 40 or near(picture, to_mnist(seven()), mean=2)  # 40 is too coarse to be compared


@pytest.mark.parametrize("side", [20, 28, 64, 300, 1200])
@pytest.mark.parametrize("ink, paper", [(255, 0), (0, 255), (10, 200), (120, 60), (90, 130)])
def test_any_size_dark_on_light_or_light_on_dark(read, side, ink, paper):
    shape = seven(side).astype(int)
    assert near(read((paper + (ink - paper) * shape // 255).astype(np.uint8)), to_mnist(shape), mean=1)


@pytest.mark.parametrize(
    "ink, paper", [((200, 0, 0), (255, 255, 255)), ((0, 0, 255), (0, 90, 0)), ((40, 0, 0), (0, 0, 0))]
)
def test_colour(read, ink, paper):
    pixels = np.where(seven()[:, :, None] > 0, np.array(ink), np.array(paper)).astype(np.uint8)
    assert near(read(pixels), to_mnist(seven()), mean=1)


@pytest.mark.parametrize("colour", [(0,), (255,), (0, 0, 0), (255, 255, 255), (200, 10, 90)])
def test_ink_on_a_transparent_ground(read, colour):
    pixels = np.zeros((280, 280, len(colour) + 1), np.uint8)
    pixels[:, :, :-1], pixels[:, :, -1] = colour, seven()  # the colour is the same everywhere; only alpha has the digit
    assert near(read(pixels), to_mnist(seven()), mean=1)


def test_a_thin_stroke_is_as_bright_as_a_thick_one():
    assert to_mnist(seven(1120, thick=2)).max() == 255


def test_noise_is_not_ink(read):
    noise = np.random.RandomState(0).normal(0, 6, (280, 280))
    paper = np.clip(200 - seven() * 0.6 + noise, 0, 255).astype(np.uint8)
    assert near(read(paper), to_mnist(seven()), mean=4)


def test_jpeg(tmp_path):
    plt = pytest.importorskip("matplotlib.image", reason="matplotlib writes the JPEG")
    plt.imsave(tmp_path / "seven.jpg", 255 - seven(), cmap="gray")
    assert near(read_picture(tmp_path / "seven.jpg"), to_mnist(seven()), mean=2)


@pytest.mark.parametrize("ink, paper", [(65535, 0), (0, 65535), (9000, 40000)])
def test_sixteen_bits(tmp_path, ink, paper):
    noise = np.random.RandomState(0).randint(-300, 300, (280, 280))  # a step of 8 bits is 257 of these
    levels = (paper + (ink - paper) * (seven() / 255.0) + noise).clip(0, 65535).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "seven.png")
    assert Image.open(tmp_path / "seven.png").mode in ("I;16", "I")
    assert near(read_picture(tmp_path / "seven.png"), to_mnist(seven()), mean=2)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
@pytest.mark.parametrize("orientation, turns", [(1, 0), (6, 1), (3, 2), (8, 3)])
def test_a_photograph_is_turned_as_its_exif_says(tmp_path, kind, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation  # 6: to be turned by 90° clockwise
    Image.fromarray(np.rot90(seven(), turns).copy()).save(tmp_path / "seven", kind, exif=exif)
    assert near(read_picture(tmp_path / "seven"), to_mnist(seven()), mean=2)


@pytest.mark.parametrize("exif", [b"MM", b"Exif\0\0MM\0*\0", b"Exif\0\0nonsense"])
def test_a_damaged_exif_block_says_nothing(tmp_path, exif):
    Image.fromarray(seven()).save(tmp_path / "seven.png", exif=exif)
    assert near(read_picture(tmp_path / "seven.png"), to_mnist(seven()), mean=1)


GOOD = png(seven()[:, :, None])


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b"", "is not a picture that can be read; PNG and JPEG can"),
        (b"hello", "is not a picture that can be read; PNG and JPEG can"),
        (GOOD[:20], "is not a picture that can be read; PNG and JPEG can"),
        (b"\xff\xd8\xff\xe0" + b"x" * 99, "is not a picture that can be read; PNG and JPEG can"),
        (png(np.full((9, 9, 1), 77, np.uint8)), "is blank; nothing in it differs from its border"),
        (png(np.full((9, 9, 4), 0, np.uint8)), "is blank; nothing in it differs from its border"),
        (png(np.full((1, 1, 3), 255, np.uint8)), "is blank; nothing in it differs from its border"),
    ],
)
def test_what_is_no_picture_of_a_digit(tmp_path, content, sentence):
    (tmp_path / "picture").write_bytes(content)
    with pytest.raises(DataError, match=f"{tmp_path / 'picture'}: {sentence}"):
        read_picture(tmp_path / "picture")


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_picture(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_picture(tmp_path)
    for blank in (np.zeros((5, 5)), np.zeros((0, 5)), np.ones((1, 1)), np.zeros(7)):
        with pytest.raises(DataError, match="the picture: is blank"):
            to_mnist(blank)
