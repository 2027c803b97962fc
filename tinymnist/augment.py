"""Training images shifted, turned and scaled a little: as many new digits as one likes.   Simard, Steinkraus, Platt 2003"""

from __future__ import annotations

import numpy as np

SHIFT, TURN, SCALE = 2.0, 12.0, 0.1  # pixels, degrees and a share of the size, at most, either way


def altered(images, rng):
    """Each of images (N, H, W), bytes, through an affine map of its own drawn from rng, with bilinear interpolation.

    out[p] = in[A (p − c) + c + t],   A = R(θ) / s,   θ, s and t uniform, c the centre; 0 outside.
    """
    n, height, width = images.shape
    angle = np.radians(
        rng.uniform(
            -TURN,
            TURN,
            (n, 1, 1),
        ).astype(np.float32)
    )
    scale = rng.uniform(1 - SCALE, 1 + SCALE, (n, 2, 1)).astype(np.float32)
    shift = rng.uniform(-SHIFT, SHIFT, (n, 2, 1)).astype(np.float32)
    y, x = (axis.reshape(1, -1) for axis in np.mgrid[:height, :width].astype(np.float32))
    cy, cx = (height - 1) / 2, (width - 1) / 2
    dy, dx = (y - cy) / scale[:, 0], (x - cx) / scale[:, 1]
    cos, sin = np.cos(angle[:, 0]), np.sin(angle[:, 0])
    row = cos * dy - sin * dx + cy + shift[:, 0]
    column = sin * dy + cos * dx + cx + shift[:, 1]
    framed = np.zeros((n, height + 2, width + 2), np.float32)
    framed[:, 1:-1, 1:-1] = images
    row, column = np.clip(row + 1, 0, height + 0.999), np.clip(column + 1, 0, width + 0.999)
    i, j = row.astype(np.int32), column.astype(np.int32)
    v, u = row - i, column - j
    flat, at = framed.reshape(-1), i * (width + 2) + j + np.arange(n)[:, None] * framed[0].size
    top = flat[at] * (1 - u) + flat[at + 1] * u
    bottom = flat[at + width + 2] * (1 - u) + flat[at + width + 3] * u
    return np.rint(top * (1 - v) + bottom * v).astype(np.uint8).reshape(images.shape)
