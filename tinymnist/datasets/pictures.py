"""Pictures of any size, brought into MNIST's form.

The digit is cut out, scaled into a box of 20x20 pixels without distortion, and placed in a picture of 28x28 with its
centre of mass in the middle.   Y. LeCun, C. Cortes, C. Burges, "The MNIST database".
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import numpy as np

from tinymnist.idx import DataError, report_errors

SIDE, BOX = 28, 20
LARGEST = 256  # larger pictures are reduced to this many pixels a side before the ink is looked for
STROKE = 0.3  # strokes are narrower than this share of the picture, shadows and sheets of paper are wider
FORMATS = ("PNG", "JPEG")


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """Read a PNG or JPEG file with one digit, dark on light or light on dark, grey or in colour: (28, 28) uint8.

    Shadows, edges of the paper, ruled lines and specks are not ink. Raises DataError if no digit, or more than one, is
    found.
    """
    picture = open_picture(path)
    try:
        for background in ("white", "black"):  # behind transparent pixels; black if nothing is visible on white
            with contextlib.suppress(LookupError):
                return to_mnist(find_digit(lay_on(picture, background)))
        raise DataError("is blank; no ink stands out from the paper")
    except DataError as error:
        raise DataError(f"{os.fspath(path)}: {error}") from None


def open_picture(path):
    """The picture in RGBA, the right way up, with at most LARGEST pixels a side."""
    from PIL import Image, ImageOps

    with report_errors(path):
        content = Path(path).read_bytes()
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
        picture.load()
        with contextlib.suppress(Exception):  # ignore a damaged EXIF block
            picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith("I"):  # 16 bits of grey, which `convert` would clip at 255
            picture = Image.fromarray((np.asarray(picture) // 257).clip(0, 255).astype(np.uint8))
        picture = picture.convert("RGBA")
        picture.thumbnail((LARGEST, LARGEST))
        return picture
    except Exception as error:  # Pillow raises many types for a damaged file
        raise DataError(f"{os.fspath(path)}: is not a picture that can be read; expected PNG or JPEG") from error


def lay_on(picture, colour):
    """Colours (H, W, 3) of a picture with transparent parts on a background."""
    from PIL import Image

    paper = Image.new("RGBA", picture.size, colour)
    return np.asarray(Image.alpha_composite(paper, picture).convert("RGB"), np.float64)


def find_digit(colours):
    """The ink (H, W) of the one digit, 0 elsewhere. Raises LookupError without ink, DataError without one digit."""
    border = np.median(np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]]), axis=0)
    ink = np.abs(colours - border).max(axis=2)
    if ink.max() < 16:  # less than a sixteenth of the scale is paper
        raise LookupError
    if colours.shape[:2] == (SIDE, SIDE) or is_cut_at_the_ink(colours - border, ink):
        return ink  # as small as MNIST's images, it has no details to remove
    return choose_parts(find_ink(colours, border))


def is_cut_at_the_ink(difference, ink):
    """Whether a digit fills the picture: ink on all four sides, and no colours on the other side of the paper's."""
    sides = [side > ink.max() / 10 for side in (ink[0], ink[-1], ink[:, 0], ink[:, -1])]
    darkest, brightest = -difference.min(axis=(0, 1)), difference.max(axis=(0, 1))
    one_sided = np.minimum(darkest, brightest).max() < ink.max() / 5
    return one_sided and all(0 < side.mean() < 0.95 for side in sides) and 0.2 < (ink > ink.max() / 2).mean() < 0.7


def find_ink(colours, border):
    """What is narrower than a stroke, and darker or brighter than its surroundings. (H, W), 0 elsewhere."""
    from scipy import ndimage

    size = [int(STROKE * n) | 1 for n in colours.shape[:2]]
    inner = slice(max(size), -max(size))
    smooth = 0.003 * max(colours.shape)  # against noise
    inks = []
    for channel, outside in zip(np.moveaxis(ndimage.gaussian_filter(colours, (smooth, smooth, 0)), 2, 0), border):
        # A closing fills dark strokes, an opening bright ones. What is left is the paper, with its shadows and edges.
        padded = np.pad(channel, max(size), constant_values=outside)
        dark = (ndimage.grey_closing(padded, size) - padded)[inner, inner]
        bright = (padded - ndimage.grey_opening(padded, size))[inner, inner]
        inks.append(max(dark, bright, key=lambda ink: score(ink, channel)))
    ink = np.max(inks, axis=0)
    for axis in (1, 0):  # ruled lines: what a tenth of a row or column has is not the digit
        ink = ink - np.percentile(ink, 10, axis, keepdims=True)
    return ink.clip(0)


def score(ink, channel):
    """How well `ink` explains a channel: it differs from most of the picture, and its edges are edges there too."""
    from scipy import ndimage

    if ink.max() < 8:
        return 0
    inside = ink > ink.max() / 2
    outline = inside & ~ndimage.binary_erosion(inside, border_value=1)
    edges = ndimage.morphological_gradient(channel, 3)[outline]
    return max(0, np.sign(edges - ink.max() / 4).mean()) * abs(channel[inside].mean() - np.median(channel))


def choose_parts(ink):
    """Only the parts of the ink that belong to the digit: the largest one, and those close to it."""
    from scipy import ndimage

    noise = 4 * np.median(ink) + 12
    if ink.max() < noise:
        raise LookupError
    strong = ink[ink > max(noise, 0.2 * ink.max())]
    parts, _ = ndimage.label(ink > max(noise, 0.4 * np.percentile(strong, 75)), np.ones((3, 3)))
    boxes, areas = ndimage.find_objects(parts), np.bincount(parts.ravel())[1:]
    height, width = ink.shape
    inside = [r.start > 0 and c.start > 0 and r.stop < height and c.stop < width for r, c in boxes]
    sizes = [max(r.stop - r.start, c.stop - c.start) * whole for (r, c), whole in zip(boxes, inside)]
    main = int(np.argmax(sizes)) if sizes else 0
    if not sizes or sizes[main] < 0.1 * max(ink.shape):
        raise DataError("holds no digit; ink was found only at the edge, or too little")
    rows, columns = boxes[main]
    gap, kept = 0.1 * sizes[main], [main + 1]
    for n, (r, c) in enumerate(boxes):
        if n == main or not inside[n] or areas[n] < 0.02 * areas[main]:
            continue
        overlap = min(c.stop, columns.stop) - max(c.start, columns.start)
        if r.stop - r.start > 0.5 * (rows.stop - rows.start) and overlap < 0.5 * (c.stop - c.start):
            raise DataError("holds several digits; expected one")
        if max(r.start - rows.stop, rows.start - r.stop, c.start - columns.stop, columns.start - c.stop) < gap:
            kept.append(n + 1)
    digit = np.isin(parts, kept)
    near = ndimage.binary_dilation(digit, np.ones((3, 3)), iterations=2)
    return np.where(near, ink / np.percentile(ink[digit], 75), 0).clip(0, 1)


def to_mnist(grey: np.ndarray) -> np.ndarray:
    """Bring grey levels (H, W), bright ink on a dark background, into MNIST's form: (28, 28) uint8, at most 255."""
    from PIL import Image

    if grey.ndim != 2 or grey.size == 0 or grey.max() == grey.min():
        raise DataError(f"is blank; expected a digit in its {grey.shape} pixels")
    ink = (grey - grey.min()) / float(grey.max() - grey.min())
    rows, columns = (np.flatnonzero((ink > 0.1).any(axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(ink.shape)
    height, width = (max(1, round(n * scale)) for n in ink.shape)
    ink = np.asarray(Image.fromarray(ink.astype(np.float32)).resize((width, height), Image.BICUBIC), np.float64)
    if scale > 1:
        # Enlarging makes edges `scale` pixels wide; this makes them one pixel wide again. With 0.6, the strokes of the
        # embedded digits become as thick as MNIST's.
        ink = (ink - 0.6) * scale + 0.5
    ink = ink.clip(0, 1) / ink.clip(0, 1).max()
    picture = np.zeros((SIDE, SIDE))
    top, left = (find_start(ink.sum(axis)) for axis in (1, 0))
    picture[top : top + height, left : left + width] = ink
    return np.rint(255 * picture).astype(np.uint8)


def find_start(mass):
    """Where a row of masses starts if its centre is at 14, as in MNIST, or as near to 14 as the edges allow."""
    centre = (mass * np.arange(mass.size)).sum() / mass.sum()
    return int(np.clip(round(SIDE / 2 - centre), 0, SIDE - mass.size))
