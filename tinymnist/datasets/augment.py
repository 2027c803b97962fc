"""Training images, each shifted, rotated, scaled and bent a little by a random map.

P. Simard, D. Steinkraus, J. Platt 2003, "Best practices for convolutional neural networks …".
"""

import functools

import numpy as np

SHIFT, ROTATION, SCALE = 2.0, 12.0, 0.12  # at most: pixels, degrees, share of the size
ALPHA, SIGMA = 24.0, 4.0  # the elastic field: it moves a pixel by 0.9 pixels (root mean square) along each axis


def alter(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return images (N, H, W) of bytes, each changed by its own map, with bilinear interpolation.

    out[p] = in[R(θ) ((p − c) / s) + c + t + α (G ∗ u)(p)]: c is the centre, R a rotation; in is 0 outside the image.
    Angle θ, scale s, shift t, field u in [−1, 1] are uniform; s, t, u are pairs (row, column).
    G ∗ blurs by a Gaussian of deviation σ.
    """
    n, height, width = images.shape
    angle = rng.uniform(-ROTATION, ROTATION, (n, 1, 1)).astype(np.float32) * np.float32(np.pi / 180)
    scale = rng.uniform(1 - SCALE, 1 + SCALE, (2, n, 1, 1)).astype(np.float32)
    shift = rng.uniform(-SHIFT, SHIFT, (2, n, 1, 1)).astype(np.float32)
    u = 2 * rng.random((2, n, height, width), np.float32) - 1
    bend = gaussian(height) @ u @ gaussian(width).T * np.float32(ALPHA)

    c = np.array([height - 1, width - 1], np.float32).reshape(2, 1, 1, 1) / 2
    y, x = (np.mgrid[:height, :width].astype(np.float32)[:, None] - c) / scale
    rotated = np.stack([np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x])
    return interpolate(images, *(rotated + c + shift + bend))


@functools.lru_cache
def gaussian(size):
    """Convolution as a matrix (size, size): row i holds the weights of a Gaussian around i."""
    distance = np.subtract.outer(np.arange(size), np.arange(size))
    return (np.exp(-((distance / SIGMA) ** 2) / 2) / (SIGMA * np.sqrt(2 * np.pi))).astype(np.float32)


def interpolate(images, row, column):
    """The images at the positions row, column (N, H, W), each a weighted mean of four pixels; zeros outside."""
    n, height, width = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1))).astype(np.float32)
    # At most 0.999 into the padding, so that pixel i + 1 exists
    row, column = np.clip(row + 1, 0, height + 0.999), np.clip(column + 1, 0, width + 0.999)
    i, j = row.astype(np.int32), column.astype(np.int32)
    down, right = row - i, column - j
    pixels, stride = padded.reshape(-1), width + 2
    at = i * stride + j + np.arange(n).reshape(n, 1, 1) * padded[0].size
    top, bottom = (pixels[at + k] + (pixels[at + k + 1] - pixels[at + k]) * right for k in (0, stride))
    return np.rint(top + (bottom - top) * down).astype(np.uint8)
