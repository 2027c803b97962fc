"""Minibatches: a few examples at a time, in a new order in every epoch.

The images lie on the device (the CPU or a GPU) as bytes, and are taken from there batch by batch.
In shapes, N counts examples, C channels (1: grey), H rows and W columns of pixels.
"""

from collections import namedtuple

import numpy as np

from tinymnist.backend import nd

Split = namedtuple("Split", "images labels")  # images (N, H, W) uint8, 0 to 255; labels (N,), whole numbers


def permutation(seed, epoch, n):
    """The order in which an epoch visits n examples. The same seed and epoch give the same order, so runs repeat."""
    return np.random.default_rng((seed, epoch)).permutation(n)


class Batches:
    """Batches of a Split on a device: images (N, 1, H, W), bytes, and labels (N,), with N = batch_size.

    The last batch of an epoch may be smaller.
    Raises ValueError for a batch size below 1.
    """

    def __init__(self, split, batch_size, device):
        if batch_size < 1:
            raise ValueError(f"a batch has at least 1 example, not {batch_size}")
        self.batch_size, self.device = batch_size, device
        self.images, self.labels = map(self.to_device, split)

    def to_device(self, array):
        """The array on the device. On the CPU a read-only array is shared, not copied: it must not change."""
        if array.flags.writeable:
            return nd.array(array, self.device, array.dtype)
        return nd.from_numpy(np.ascontiguousarray(array)).as_in_context(self.device)

    def epoch(self, order):
        """Yield the batches of one epoch, in the given order of examples."""
        for begin in range(0, len(order), self.batch_size):
            yield self.take(order[begin : begin + self.batch_size])

    def take(self, indices):
        """The images and the labels of these examples, however many they are."""
        indices = nd.array(indices, ctx=self.device, dtype="int32")
        return nd.take(self.images, indices).expand_dims(1), nd.take(self.labels, indices)
