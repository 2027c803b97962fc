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


def to_mnist(grey: np.ndarray, name: str = "the picture") -> np.ndarray:
    """Bring grey levels (H, W), bright ink on a dark background, into MNIST's form: (28, 28) uint8, at most 255."""
    if grey.ndim != 2 or grey.size == 0 or grey.max() == grey.min():
        raise DataError(f"{name}: is blank; expected a digit in its {grey.shape} pixels")
    ink = (grey - grey.min()) / float(grey.max() - grey.min())
    rows, columns = (np.flatnonzero((ink > 0.1).any(axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(ink.shape)
    height, width = (max(1, round(n * scale)) for n in ink.shape)
    ink = resample(ink.shape[0], height) @ ink @ resample(ink.shape[1], width).T
    if scale > 1:
        # Enlarging makes edges `scale` pixels wide; this makes them one pixel wide again. With 0.6, the strokes of the
        # embedded digits become as thick as MNIST's.
        ink = (ink - 0.6) * scale + 0.5
    ink = ink.clip(0, 1) / ink.clip(0, 1).max()
    picture = np.zeros((SIDE, SIDE))
    top, left = (find_start(ink.sum(axis)) for axis in (1, 0))
    picture[top : top + height, left : left + width] = ink
    return np.rint(255 * picture).astype(np.uint8)


def resample(n, m):
    """A matrix (m, n) that makes m samples of n by Keys' cubic (1981), as wide as the coarser of the two grids."""
    step = n / m
    x = np.abs((np.arange(m)[:, None] + 0.5) * step - 0.5 - np.arange(n)) / max(1.0, step)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)


def find_start(mass):
    """Where a row of masses starts if its centre is at 14, as in MNIST, or as near to 14 as the edges allow."""
    centre = (mass * np.arange(mass.size)).sum() / mass.sum()
    return int(np.clip(round(SIDE / 2 - centre), 0, SIDE - mass.size))


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """Read a PNG or JPEG file with one digit, dark on light or light on dark, grey or in colour: (28, 28) uint8.

    The background is the median colour of the border. Ink is what differs from the background.
    """
    from PIL import Image, ImageOps

    name = os.fspath(path)
    with report_errors(path):
        content = Path(path).read_bytes()
    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
        with contextlib.suppress(Exception):  # ignore a damaged EXIF block
            picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith("I"):  # 16 bits of grey, which `convert` would clip at 255
            picture = Image.fromarray((np.asarray(picture) // 257).clip(0, 255).astype(np.uint8))
        pixels = np.asarray(picture.convert("RGBA"), np.int32)
    except Exception as error:  # Pillow raises many types for a damaged file
        raise DataError(f"{name}: is not a picture that can be read; expected PNG or JPEG") from error
    colours, alpha = pixels[:, :, :3], pixels[:, :, 3:]
    for background in (255, 0):  # behind transparent pixels: white, or black if nothing is visible on white
        seen = background + (colours - background) * alpha // 255
        border = np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]])
        median = np.median(border, 0)
        noise = np.percentile(np.abs(border - median).max(1), 75)
        ink = np.abs(seen - median.astype(np.int32)).max(2) - 3 * noise  # noise is above 0 in 1 of 2,000 pixels
        if ink.max() >= 16:  # less than a sixteenth of the scale is paper
            return to_mnist(ink.clip(0), name)
    raise DataError(f"{name}: is blank; nothing in it differs from its border")
