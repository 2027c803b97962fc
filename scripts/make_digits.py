"""Make tinymnist/datasets/digits: the 1,797 UCI digits that scikit-learn contains, in the format of MNIST.

They are 8x8 pictures of 16 grey levels. 30 of each digit, chosen with a fixed seed, are the test set of 300. The same
people wrote both sets, so this test is easier than MNIST's.
"""

from pathlib import Path

import cli
import numpy as np

from tinymnist import idx
from tinymnist.datasets.pictures import to_mnist


def make_digits(directory):
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits are in scikit-learn: pip install scikit-learn") from error
    digits = load_digits()
    images, labels = np.stack([to_mnist(image) for image in digits.images]), digits.target.astype(np.uint8)
    order = np.random.RandomState(0).permutation(len(labels))  # numpy never changes the stream of RandomState
    test = np.sort(np.concatenate([order[labels[order] == digit][:30] for digit in range(10)]))
    directory.mkdir(parents=True, exist_ok=True)
    for prefix, chosen in (("train", np.setdiff1d(order, test)), ("t10k", test)):
        idx.write(directory / f"{prefix}-images-idx3-ubyte.gz", images[chosen])
        idx.write(directory / f"{prefix}-labels-idx1-ubyte.gz", labels[chosen])
        print(f"{directory}: {len(chosen):,} images for {'testing' if prefix == 't10k' else 'training'}")


def main(argv=None):
    parser = cli.Parser(description=__doc__.splitlines()[0])
    default = cli.ROOT / "tinymnist" / "datasets" / "digits"
    parser.add_argument("directory", nargs="?", type=Path, default=default, help="default: tinymnist/datasets/digits")
    return cli.run(lambda _: make_digits(parser.parse_args(argv).directory))


if __name__ == "__main__":
    cli.start(main)
