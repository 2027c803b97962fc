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
from PIL import Image, ImageOps
from scipy import ndimage

from tinymnist.idx import DataError, report_errors

SIDE, BOX = 28, 20
LARGEST = 256  # larger pictures are reduced to this many pixels a side before the ink is looked for
STROKE = 0.3  # strokes are narrower than this share of the picture; shadows and sheets of paper are wider
TILT = 0.14  # ruled lines climb at most this share of their length, 8 degrees
EDGE = 0.9  # a stroke has an edge along this share of its outline
THICK = 0.6  # strokes wider than this share of the digit are refused; one in 4000 of MNIST's digits has such
WIDE = 0.2  # strokes wider than this share of the digit are made narrower; one in 16 of MNIST's digits has such
AROUND = np.ones((3, 3))  # a pixel and its eight neighbours


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """Read a PNG or JPEG file with one digit, dark on light or light on dark, grey or in colour: (28, 28) uint8.

    Shadows, edges of the paper, ruled lines and specks are not ink. Raises DataError if no digit, or more than one, is
    found.
    """
    picture = open_picture(path)
    try:
        for background in ("white", "black"):  # behind transparent pixels; black if nothing is visible on white
            ink = find_digit(lay_on(picture, background))
            if ink is not None:
                return to_mnist(ink)
        raise DataError("is blank; no ink stands out from the paper")
    except DataError as error:
        raise DataError(f"{os.fspath(path)}: {error}") from None


def open_picture(path):
    """The picture in RGBA, the right way up, with at most LARGEST pixels a side."""
    with report_errors(path):
        content = Path(path).read_bytes()
    try:
        picture = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
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
    paper = Image.new("RGBA", picture.size, colour)
    return np.asarray(Image.alpha_composite(paper, picture).convert("RGB"), np.float64)


def find_digit(colours):
    """The ink (H, W) of the one digit, 0 elsewhere; None without ink. Raises DataError if the ink is not one digit.

    An image of MNIST, or one cut out at the digit, is all ink and paper: ink is what differs from the border. In any
    other picture, ink is what find_strokes finds in red, green or blue, dark or bright: the best score wins.
    """
    border = np.median(np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]]), axis=0)
    change = colours - border
    ink = np.abs(change).max(axis=2)
    if ink.max() < 16:  # all is paper: it varies by less than a sixteenth of the scale
        return None
    if ink.shape == (SIDE, SIDE):  # as small as MNIST's images, it has no details to remove
        return ink
    darker, brighter = -change.min(axis=(0, 1)), change.max(axis=(0, 1))
    one_sided = np.minimum(darker, brighter).max() < ink.max() / 5  # all ink is darker, or all is brighter
    if one_sided and fills_the_picture(ink):
        return ink
    colours = ndimage.gaussian_filter(colours, np.array([0.003, 0.003, 0]) * max(ink.shape))  # against noise
    channels = colours[:, :, :1] if (colours == colours[:, :, :1]).all() else colours
    greys = [grey for c in np.moveaxis(channels, 2, 0) for grey in (c, 255 - c)]  # the ink is dark in one of them
    found = sorted(((*find_strokes(grey), grey) for grey in greys), key=lambda each: each[0], reverse=True)
    _, ink, parts, grey = found[0]
    for _, other_ink, other_parts, _ in found[1:]:  # a sheet on a table has a high score, too
        if is_paper(grey, parts, other_parts):
            return choose_parts(other_ink, other_parts)
    return choose_parts(ink, parts)


def is_paper(grey, parts, inner):
    """Whether the largest of the parts is a sheet of paper on a table, and the largest of `inner` the digit on it.

    Then it surrounds the digit, and differs more from the digit's ink than from the table.
    """
    if parts is None or inner is None or not parts.any() or not inner.any():
        return False
    (m, (rows, columns)), (n, (r, c)) = find_largest(parts), find_largest(inner)
    if r.start <= rows.start or r.stop >= rows.stop or c.start <= columns.start or c.stop >= columns.stop:
        return False
    around = np.zeros(grey.shape, bool)
    around[max(0, rows.start - 6) : rows.stop + 6, max(0, columns.start - 6) : columns.stop + 6] = True
    around[rows, columns] = False
    table, paper, ink = (np.median(grey[area]) for area in (around, parts == m, inner == n))
    return abs(ink - paper) > 1.2 * abs(table - paper)  # not so in the hole of a 0, which is paper, too


def find_largest(parts):
    """The number of the part with the longest side, and its box, a pair of slices"""
    boxes = ndimage.find_objects(parts)
    main = max(range(len(boxes)), key=lambda i: max(s.stop - s.start for s in boxes[i]))
    return main + 1, boxes[main]


def fills_the_picture(ink):
    """Whether the picture was cut out at the edges of its digit: narrow strokes connect all four sides."""
    inside, m = ink > ink.max() / 2, 1 + max(ink.shape) // 20  # m: the width of a strip along a side
    parts, _ = ndimage.label(ink > ink.max() / 10, AROUND)
    sides = parts[:m], parts[-m:], parts[:, :m], parts[:, -m:]
    connected = set.intersection(*(set(side[side > 0]) for side in sides))
    frame = any((side > 0).mean() > 0.95 for side in sides)  # a strip is all ink
    # wide: something is wider than 0.4 of the picture
    wide = ndimage.minimum_filter(inside, int(0.4 * max(ink.shape)) + 1, mode="constant").any()
    return bool(connected) and 0.15 < inside.mean() < 0.7 and not frame and not wide


def find_strokes(grey):
    """Strokes: what is darker than the paper, narrow, and has an edge all around.

    Returns a score, the largest sum of edges of one part; the ink (H, W), about 0 to 1; and its connected parts (H, W):
    1, 2, … at the pixels of each, 0 on paper, or None if there is only noise.
    """
    # A closing fills what is dark and narrow. It leaves the paper, with its shadows and edges.
    size = int(STROKE * max(grey.shape)) | 1
    paper = ndimage.grey_closing(np.pad(grey, size, "edge"), size)[size:-size, size:-size]
    ink = (paper - grey) / (paper + 40)  # a ratio, about the same in light and in shadow
    ink = remove_lines(remove_lines(ink).T).T  # horizontal ones, then vertical ones
    noise = 4 * np.median(ink) + 0.05
    if ink.max() < noise:
        return 0, ink, None
    level = max(noise, 0.4 * np.percentile(ink[ink > max(noise, 0.2 * ink.max())], 75))
    parts, count = ndimage.label(ink > level, AROUND)
    # Remove parts at the border and parts without an edge all around: the corner of a sheet has one on two sides only.
    outline = (parts > 0) & ~ndimage.binary_erosion(parts > 0)
    brightest = ndimage.grey_dilation(grey, 5)
    edges = brightest - ndimage.grey_erosion(grey, 5)
    edge_share = ndimage.mean((edges / (brightest + 40) > level)[outline], parts[outline], range(1, count + 1))
    at_border = np.isin(range(1, count + 1), np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    parts, count = ndimage.label(np.append(False, ~at_border & (edge_share > EDGE))[parts], AROUND)
    return max(ndimage.sum(edges * outline, parts, range(1, count + 1)), default=0), ink, parts


def remove_lines(ink):
    """Ink (H, W) without ruled lines that are at most 8 degrees off the horizontal."""
    width, margin = ink.shape[1], int(TILT * ink.shape[1] / 2) + 1
    padded = np.pad(ink.astype(np.float32), ((margin, margin), (0, 0)))
    y, x = np.arange(len(padded))[:, None], np.arange(width)

    def measure(climb, x):
        """For each line, the ink that nine tenths of its pixels reach (a digit fills less); how many rows it rises."""
        rise, n = np.rint(climb * (x / width - 0.5)).astype(int), len(x) // 10
        return np.partition(padded[(y + rise).clip(0, len(y) - 1), x], n, axis=1)[:, n], rise

    some = x[:: max(1, width // 32)]  # enough to find the slope
    climb = max(range(-2 * margin, 2 * margin + 1), key=lambda n: measure(n, some)[0].var())
    line, rise = measure(climb, x)
    return (ink - line[y[margin:-margin] - rise]).clip(0)


def choose_parts(ink, parts):
    """The ink (H, W) of the parts that belong to the digit: the largest one, and those close to it; 0 elsewhere.

    Without parts: None.
    """
    if parts is None:
        return None
    boxes, areas = ndimage.find_objects(parts), np.bincount(parts.ravel())[1:]
    sizes = [max(r.stop - r.start, c.stop - c.start) for r, c in boxes]
    if max(sizes, default=0) < 0.1 * max(ink.shape):
        raise DataError("holds no digit; ink was found only at the edge, or too little")
    main = int(np.argmax(sizes))
    holes = ndimage.binary_fill_holes(parts == main + 1) & (parts != main + 1)
    enclosed = [n for n in np.unique(parts[holes]) if n and sizes[n - 1] > 0.3 * sizes[main]]
    if enclosed:  # the largest part is a box, drawn around the digit
        return choose_parts(ink, ndimage.label(np.isin(parts, enclosed), AROUND)[0])
    rows, columns = boxes[main]
    gap, kept = 0.1 * sizes[main], [main + 1]
    for n, (r, c) in enumerate(boxes):
        if n == main or areas[n] < 0.02 * areas[main]:
            continue
        overlap = min(c.stop, columns.stop) - max(c.start, columns.start)
        if r.stop - r.start > 0.5 * (rows.stop - rows.start) and overlap < 0.5 * (c.stop - c.start):
            raise DataError("holds several digits; expected one")
        if max(r.start - rows.stop, rows.start - r.stop, c.start - columns.stop, columns.start - c.stop) < gap:
            kept.append(n + 1)
    return draw_digit(ink, np.isin(parts, kept))


def draw_digit(ink, digit):
    """The ink (H, W) near `digit`, 0 elsewhere; a marker's strokes are drawn narrower."""
    height, width = (np.ptp(np.flatnonzero(digit.any(axis))) for axis in (1, 0))
    if width > 1.5 * height:  # one in 160 of MNIST's digits is so wide
        raise DataError("holds several digits that touch; expected one, not wider than 1.5 times its height")
    size, depth = max(height, width), ndimage.distance_transform_edt(digit) - 0.5
    if 2 * depth.max() > THICK * size:
        raise DataError("holds no digit that can be read; its strokes are too thick")
    excess = 4 * depth[digit].mean() - WIDE * size  # a stroke is four times as wide as its mean depth
    if excess > 0:  # a marker: take off half of the excess on each side
        return (depth + 0.5 - excess / 2).clip(0, 1)
    near = ndimage.binary_dilation(digit, AROUND, iterations=2)
    return np.where(near, ink / np.percentile(ink[digit], 75), 0).clip(0, 1)


def to_mnist(grey: np.ndarray) -> np.ndarray:
    """Bring grey levels (H, W), bright ink on a dark background, into MNIST's form: (28, 28) uint8, the largest 255."""
    if grey.ndim != 2 or grey.size == 0 or grey.max() == grey.min():
        raise DataError(f"is blank; expected a digit in its {grey.shape} pixels")
    ink = (grey - grey.min()) / float(grey.max() - grey.min())
    rows, columns = (np.flatnonzero((ink > 0.1).any(axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(ink.shape)
    height, width = (max(1, round(n * scale)) for n in ink.shape)
    ink = np.asarray(Image.fromarray(ink.astype(np.float32)).resize((width, height), Image.BICUBIC), np.float64)
    if scale > 1:
        # Enlarging makes edges `scale` pixels wide; this makes them one pixel wide again. 0.6 makes the strokes of the
        # embedded digits as thick as MNIST's.
        ink = (ink - 0.6) * scale + 0.5
    ink = ink.clip(0, 1) / ink.clip(0, 1).max()
    picture = np.zeros((SIDE, SIDE))
    top, left = (find_start(ink.sum(axis)) for axis in (1, 0))
    picture[top : top + height, left : left + width] = ink
    return np.rint(255 * picture).astype(np.uint8)


def find_start(mass):
    """Where to put a row of masses, so that its centre is at 14, as in MNIST, or as near as the edges allow."""
    centre = (mass * np.arange(mass.size)).sum() / mass.sum()
    return int(np.clip(round(SIDE / 2 - centre), 0, SIDE - mass.size))
