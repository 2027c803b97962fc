"""Minibatches on a device: bytes until their turn, in a new order every epoch, the last one as small as it comes."""

from __future__ import annotations

import numpy as np

from tinymnist.backend import nd
from tinymnist.runtime.files import release, rows

PART = 4 << 20  # pixels counted at once
GATHERED = 64  # batches gathered in one go: one by one each costs 60 µs instead of 10, and a whole epoch a second copy
WHOLE = 256 << 20  # bytes of a mapped file up to which it is brought to the device whole


def permutation(seed, epoch, n):
    """The order of n examples in an epoch: the same for the same (seed, epoch), another for any other."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def statistics(images):
    """Mean and standard deviation of pixels scaled to [0, 1], from a count of each byte; MNIST: 0.1307, 0.3081."""
    counts, values, some = 0, np.arange(256) / 255, 1 + PART // images[0].size
    for begin in range(0, len(images), some):
        counts = counts + np.bincount(images[begin : begin + some].ravel(), minlength=256)
        release(images)
    mean = (values * counts).sum() / images.size
    return float(mean), float(np.sqrt(((values - mean) ** 2 * counts).sum() / images.size))


class Batches:
    """Batches of a split (images (N, H, W), labels (N,)) as arrays (n, 1, H, W) and (n,) of bytes on a device.

    Of `shares` that divide every batch between them, this one yields number `share`. `alter(images, rng)`, where given,
    makes the images of each batch anew, rng being seeded by (seed, epoch, number of the batch, share).
    ValueError: a batch size below 1.
    """

    def __init__(self, split, batch_size, device, *, share=0, shares=1, alter=None):
        if batch_size < 1:
            raise ValueError(f"a batch has at least 1 example, not {batch_size}")
        self.images, self.labels = split
        self.batch_size, self.device, self.share, self.shares, self.alter = batch_size, device, share, shares, alter
        # The bytes lie on the device once; those of a large mapped file on disk, and those to be altered on the host.
        self.resident = alter is None and not (isinstance(self.images, np.memmap) and self.images.nbytes > WHOLE)
        if self.resident:
            self.images, self.labels = self.to_device(self.images), self.to_device(self.labels)

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def to_device(self, array):
        # Without a copy where the device is the host: MXNet then reads numpy's own memory.
        return nd.from_numpy(np.ascontiguousarray(array)).as_in_context(self.device)

    def bounds(self, begin, n):
        """Where this share of the batch that begins at `begin` begins and ends in an order of n examples."""
        size = min(self.batch_size, n - begin)
        return begin + size * self.share // self.shares, begin + size * (self.share + 1) // self.shares

    def __iter__(self):
        """All examples in their own order."""
        return self.epoch(np.arange(len(self.labels)))

    def epoch(self, order, start=0, seed=()):
        """The batches from number `start` on, in the given order of examples; None for a share without examples."""
        numbers = range(start, len(self))
        own = [order[slice(*self.bounds(number * self.batch_size, len(order)))] for number in numbers]
        if self.resident:
            for first in range(0, len(own), GATHERED):
                yield from self.gathered(own[first : first + GATHERED])
        else:
            for number, examples in zip(numbers, own):
                yield self.made(examples, (*seed, number, self.share)) if len(examples) else None

    def gathered(self, some):
        """Batches of some examples each, taken together and then cut into views."""
        index, end = np.concatenate(some), 0
        if len(index):
            index = nd.array(index, ctx=self.device, dtype="int32")
            images, labels = nd.take(self.images, index), nd.take(self.labels, index)
        for examples in some:
            begin, end = end, end + len(examples)
            yield (images[begin:end].expand_dims(1), labels[begin:end]) if len(examples) else None

    def made(self, examples, seed):
        """The batch of these examples, from a file or altered."""
        images = rows(self.images, examples)
        if self.alter is not None:
            images = self.alter(images, np.random.default_rng(seed))
        return self.to_device(images[:, None]), self.to_device(np.asarray(self.labels[examples]))
