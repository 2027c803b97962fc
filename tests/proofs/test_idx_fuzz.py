"""Whatever the bytes, the IDX reader ends in an array or in DataError, and takes less than 100 MB.

Half of the inputs are good files with a few bytes changed, cut out or put in, half are headers drawn to be nearly
right; half of each are gzipped before the damage, a quarter after it.
"""

import gzip
import io
import random
import struct
import tracemalloc

import numpy as np
import pytest

from tinymnist import idx
from tinymnist.idx import DataError

SIZES = [0, 1, 2, 3, 28, 255, 256, 60000, 1 << 20, 1 << 24, 1 << 30, 1 << 31, (1 << 32) - 1]


def file(rng):
    if rng.random() < 0.5:
        dtype = rng.choice(list(idx.CODES))
        blob = io.BytesIO()
        idx.write(blob, np.ones([rng.randrange(5) for _ in range(rng.randrange(5))], dtype))
        blob = blob.getvalue()
    else:
        dims = rng.choice([0, 1, 2, 3, 3, 4, 31, 32, 33, 255])
        shape = [rng.choice(SIZES) for _ in range(max(0, dims + rng.choice([0, 0, 0, -1])))]
        code = rng.choice([8, 9, 11, 12, 13, 14, rng.randrange(256)])
        blob = bytes([0, 0, code, dims]) + struct.pack(f">{len(shape)}I", *shape)
        blob += bytes(rng.choice([0, 1, 28, 1024, rng.randrange(1 << 16)]))
    if rng.random() < 0.5:
        blob = gzip.compress(blob, 1)
    blob = bytearray(blob)
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        at = rng.randrange(len(blob) + 1)
        blob[at : at + rng.choice([0, 1, 1, 1, 4, 1000])] = rng.choice([b"", rng.randbytes(1), rng.randbytes(5)])
    return gzip.compress(bytes(blob), 1) if rng.random() < 0.25 else bytes(blob)


@pytest.mark.parametrize("count", [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_an_array_or_a_sentence(count):
    rng, arrays, sentences = random.Random(count), 0, set()
    tracemalloc.start()
    for _ in range(count):
        blob = file(rng)
        assert len(blob) < 1 << 20
        try:
            assert isinstance(idx.read(io.BytesIO(blob)), np.ndarray)
            arrays += 1
        except DataError as error:
            sentences.add(str(error))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{count:,} inputs: {arrays:,} arrays, {len(sentences):,} different sentences, {peak / 1e6:.1f} MB at most")
    assert peak < 100e6
    assert count / 20 < arrays < count / 2 and len(sentences) > 100  # both ends were truly reached
