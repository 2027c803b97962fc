"""Make tinymnist/digits: the 1,797 UCI digits that scikit-learn carries, in the form of MNIST, as IDX files.

They are 8x8 pictures of 16 grey levels. Of every digit 30, drawn with a fixed seed, go into the test set of 300.
The same writers are in both sets, so this test is easier than MNIST's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tinymnist import idx
from tinymnist.datasets.pictures import to_mnist


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parent.parent / "tinymnist" / "datasets" / "digits"
    parser.add_argument("directory", nargs="?", type=Path, default=default, help="where to (default: %(default)s)")
    directory = parser.parse_args(argv).directory

    try:
        from sklearn.datasets import load_digits
    except ImportError:
        print("make_digits: scikit-learn carries the digits; pip install scikit-learn", file=sys.stderr)
        return 2

    digits = load_digits()
    images = np.stack([to_mnist(image) for image in digits.images])
    labels = digits.target.astype(np.uint8)
    order = np.random.RandomState(0).permutation(len(labels))  # RandomState's stream is promised never to change
    test = np.sort(np.concatenate([order[labels[order] == digit][:30] for digit in range(10)]))
    train = np.setdiff1d(order, test)
    directory.mkdir(parents=True, exist_ok=True)
    for prefix, chosen in (("train", train), ("t10k", test)):
        idx.write(directory / f"{prefix}-images-idx3-ubyte.gz", images[chosen])
        idx.write(directory / f"{prefix}-labels-idx1-ubyte.gz", labels[chosen])
        print(f"{directory}: {len(chosen):,} images for {'testing' if prefix == 't10k' else 'training'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
