"""How opaque the pixels of a PNG are: the channel that MXNet's reader of pictures leaves out.

Source: PNG specification (ISO/IEC 15948), sections 5 (chunks), 9 (filters) and 11.2.2 (header).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np


def opacity(blob: bytes) -> np.ndarray | None:
    """A picture file -> (H, W), 0 to 255. None for what is no PNG, has no such channel, is interlaced or 16 bits deep.

    A broken file raises ValueError.
    """
    if blob[:4] != b"\x89PNG" or len(blob) < 29:
        return None
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", blob[16:29])
    if kind not in (4, 6) or depth != 8 or interlaced:
        return None
    at, packed, step = 8, b"", kind - 2  # grey and alpha are 2 bytes a pixel, red, green, blue and alpha 4
    while at + 8 <= len(blob):
        length, chunk = struct.unpack(">I4s", blob[at : at + 8])
        packed += blob[at + 8 : at + 8 + length] * (chunk == b"IDAT")
        at += 12 + length
    size = height * (1 + step * width)
    try:
        lines = np.frombuffer(zlib.decompressobj().decompress(packed, size), np.uint8).reshape(height, 1 + step * width)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    alpha = np.zeros((height + 1, width + 1), np.int64)
    for y, line in enumerate(lines[:, step::step], 1):
        alpha[y, 1:] = _unfiltered(lines[y - 1, 0], line, alpha[y - 1])
    return alpha[1:, 1:]


def _unfiltered(kind, line, above):
    """One line from its differences to the left (1), above (2), their mean (3) or the Paeth predictor (4)."""
    if kind < 3:
        return (np.cumsum(line) if kind == 1 else line + above[1:] * (kind == 2)) & 255
    out = [0]
    for x, b, c in zip(line.tolist(), above[1:].tolist(), above.tolist()):
        a = out[-1]
        paeth = min((a, b, c), key=lambda near: abs(a + b - c - near))
        out.append((x + ((a + b) // 2 if kind == 3 else paeth)) & 255)
    return np.array(out[1:])
