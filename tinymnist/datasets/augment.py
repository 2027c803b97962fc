"""Training images shifted, turned, scaled and bent a little: as many new digits as one likes.

P. Simard, D. Steinkraus, J. Platt 2003, "Best practices for convolutional neural networks …".
"""

from __future__ import annotations

import functools

import numpy as np

SHIFT, TURN, SCALE = 2.0, 12.0, 0.12  # pixels, degrees and a share of the size, at most, either way
BEND, STIFFNESS = 24.0, 4.0  # α and σ of the elastic field: a pixel moves by 0.9 more then, root mean square


def alter(images, rng):
    """Each of images (N, H, W), bytes, through a map of its own drawn from rng, with bilinear interpolation.

    out[p] = in[R(θ) (p − c) / s + c + t + α (G ∗ u)(p)],   θ, s, t and every u(p) uniform, G a Gaussian; 0 outside.
    """
    n, height, width = images.shape
    angle = rng.uniform(-TURN, TURN, (n, 1, 1)).astype(np.float32) * np.float32(np.pi / 180)
    scale = rng.uniform(1 - SCALE, 1 + SCALE, (2, n, 1, 1)).astype(np.float32)
    shift = rng.uniform(-SHIFT, SHIFT, (2, n, 1, 1)).astype(np.float32)
    noise = 2 * rng.random((2, n, height, width), np.float32) - 1
    bend = gaussian(height) @ noise @ gaussian(width).T * np.float32(BEND)

    c = np.array([height - 1, width - 1], np.float32).reshape(2, 1, 1, 1) / 2
    y, x = (np.mgrid[:height, :width].astype(np.float32)[:, None] - c) / scale
    turned = np.stack([np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x])
    return bilinear(images, *(turned + c + shift + bend))


@functools.lru_cache
def gaussian(size):
    """(size, size): row i holds the weights of a Gaussian around i, which sum to 1 where none is cut off."""
    distance = np.subtract.outer(np.arange(size), np.arange(size))
    return (np.exp(-((distance / STIFFNESS) ** 2) / 2) / (STIFFNESS * np.sqrt(2 * np.pi))).astype(np.float32)


def bilinear(images, row, column):
    """images (N, H, W) at places row, column (N, H, W), each between four pixels; 0 outside.   -> (N, H, W) bytes"""
    n, height, width = images.shape
    framed = np.zeros((n, height + 2, width + 2), np.float32)
    framed[:, 1:-1, 1:-1] = images
    row, column = np.clip(row + 1, 0, height + 0.999), np.clip(column + 1, 0, width + 0.999)
    i, j = row.astype(np.int32), column.astype(np.int32)
    v, u = row - i, column - j
    flat, stride = framed.reshape(-1), width + 2
    at = i * stride + j + np.arange(n).reshape(n, 1, 1) * framed[0].size
    top, below = (flat[at + k] + (flat[at + k + 1] - flat[at + k]) * u for k in (0, stride))
    return np.rint(top + (below - top) * v).astype(np.uint8)
