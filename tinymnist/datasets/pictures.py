"""Pictures of any size, brought into the form of MNIST's.

The ink is cut out, scaled into a 20x20 box with its proportions kept and its edges smoothed, and laid into 28x28 with
its centre of mass in the middle.   Y. LeCun, C. Cortes, C. Burges, "The MNIST database".
"""

from __future__ import annotations

import contextlib
import os

import numpy as np

from tinymnist.idx import DataError

SIDE, BOX = 28, 20


def to_mnist(grey: np.ndarray, name: str = "the picture") -> np.ndarray:
    """(H, W), the ink bright on a dark ground of any levels -> (28, 28) uint8, the brightest ink at 255."""
    if grey.ndim != 2 or grey.size == 0 or grey.max() == grey.min():
        raise DataError(f"{name}: is blank; there is no digit to be seen in its {grey.shape} pixels")
    ink = (grey - grey.min()) / float(grey.max() - grey.min())
    rows, columns = (np.flatnonzero((ink > 0.1).any(axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(ink.shape)
    height, width = (max(1, round(n * scale)) for n in ink.shape)
    ink = _resampling(ink.shape[0], height) @ ink @ _resampling(ink.shape[1], width).T
    if scale > 1:
        # Enlarging makes edges `scale` pixels wide; this makes them one wide again. At 0.6 the strokes of the embedded
        # digits come out as thick as MNIST's: 13 pixels in 100 are above half in both.
        ink = (ink - 0.6) * scale + 0.5
    ink = ink.clip(0, 1) / ink.clip(0, 1).max()
    picture = np.zeros((SIDE, SIDE))
    top, left = (_centred(ink.sum(axis)) for axis in (1, 0))
    picture[top : top + height, left : left + width] = ink
    return np.rint(255 * picture).astype(np.uint8)


def _resampling(n: int, m: int) -> np.ndarray:
    """(m, n): m samples from n as weighted means, by Keys' cubic (1981), as wide as the coarser of the two grids."""
    step = n / m
    x = np.abs((np.arange(m)[:, None] + 0.5) * step - 0.5 - np.arange(n)) / max(1.0, step)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)


def _centred(mass: np.ndarray) -> int:
    """Where to lay a profile of n masses so that their centre comes to 14, as in MNIST, and all of them stay inside."""
    centre = (mass * np.arange(mass.size)).sum() / mass.sum()
    return int(np.clip(round(SIDE / 2 - centre), 0, SIDE - mass.size))


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """A PNG or JPEG file, dark ink on light or light on dark, colour or not -> (28, 28) uint8.

    Ink is what differs from the ground, and the ground is what the border mostly shows.
    """
    from PIL import Image, ImageOps

    name = os.fspath(path)
    try:
        with Image.open(path) as picture:
            picture.load()
            with contextlib.suppress(Exception):  # a damaged EXIF block says nothing, and not always by one exception
                picture = ImageOps.exif_transpose(picture)
            if picture.mode.startswith("I"):  # 16 bits of grey, which convert would clip at 255
                picture = Image.fromarray((np.asarray(picture) // 257).clip(0, 255).astype(np.uint8))
            pixels = np.asarray(picture.convert("RGBA"), np.int32)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{name}: cannot be read: {error.strerror}") from error
        raise DataError(f"{name}: is not a picture that can be read; PNG and JPEG can") from error
    colours, alpha = pixels[:, :, :3], pixels[:, :, 3:]
    for ground in (255, 0):  # what is transparent lies on white, or on black where white would show nothing
        seen = ground + (colours - ground) * alpha // 255
        border = np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]])
        ink = np.abs(seen - np.median(border, 0).astype(np.int32)).max(2)
        noise = np.percentile(np.abs(border - np.median(border, 0)).max(1), 75)
        ink = np.maximum(ink - 3 * noise, 0)  # of normal noise, one pixel in 2,000 stands out farther
        if ink.max() >= 16:  # a sixteenth of the scale: less than that is paper
            return to_mnist(ink, name)
    raise DataError(f"{name}: is blank; nothing in it differs from its border")
