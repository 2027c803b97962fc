"""From logits to a loss, and to what is right.   logits (N, K), labels (N,) whole numbers from 0 to K − 1"""

import numpy as np

from tinymnist.backend import nd


def log_softmax(logits):
    """log p[n,k] = z[n,k] − log Σ_j e^z[n,j],   z = logits − their row's maximum.   (N, K) -> (N, K)"""
    z, total = shifted(logits)
    return nd.broadcast_sub(z, total)


def softmax(logits):
    """p[n,k] = e^z[n,k] / Σ_j e^z[n,j]; rows sum to 1.   (N, K) -> (N, K)"""
    return nd.exp(log_softmax(logits))


def softmax_cross_entropy(logits, labels):
    """−(1/N) Σ_n log p[n, labels[n]]: a mean over the batch.   -> (1,)   Labels are not checked here."""
    z, total = shifted(logits)
    return (total - nd.pick(z, labels, keepdims=True)).mean()  # the rest of log_softmax is not wanted


def correct(logits, labels):
    """1 for a row whose largest logit, the first of equals, stands at the label, 0 for another.   -> (N,)"""
    return logits.argmax(axis=1) == nd.cast(labels, dtype=np.dtype(logits.dtype).name)


def accuracy(logits, labels):
    """The share of rows that are `correct`.   -> (1,)"""
    return correct(logits, labels).mean()


def shifted(logits):
    """z, and log Σ_j e^z[n,j] of each row.   (N, K) -> (N, K), (N, 1)"""
    # The shift leaves the result as it is and keeps e^z from overflowing; for the same reason it has no gradient.
    z = nd.broadcast_sub(logits, nd.stop_gradient(logits.max(axis=1, keepdims=True)))
    return z, nd.log(nd.exp(z).sum(axis=1, keepdims=True))
