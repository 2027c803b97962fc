"""From logits to a loss and to the accuracy.   logits (N, K), labels (N,) whole numbers from 0 to K − 1

The gradient of the loss is simple. With p = softmax(z) and L = (1/N) Σ_n (log Σ_j e^z[n,j] − z[n, labels[n]]):

    ∂ log Σ_j e^z[n,j] / ∂z[n,k] = e^z[n,k] / Σ_j e^z[n,j] = p[n,k]   and   ∂z[n, labels[n]] / ∂z[n,k] = [k = labels[n]]
    so ∂L / ∂z[n,k] = (p[n,k] − [k = labels[n]]) / N

autograd finds the same: test_the_gradient_is_softmax_minus_one_hot in tests/proofs/test_loss.py compares the two.
"""

import numpy as np

from tinymnist.backend import nd


def log_softmax(logits):
    """log p[n,k] = z[n,k] − log Σ_j e^z[n,j],   z = logits − the maximum of their row.   (N, K) -> (N, K)"""
    z, log_sum = shift_logits(logits)
    return nd.broadcast_sub(z, log_sum)


def softmax(logits):
    """p[n,k] = e^z[n,k] / Σ_j e^z[n,j]; rows sum to 1.   (N, K) -> (N, K)"""
    return nd.exp(log_softmax(logits))


def softmax_cross_entropy(logits, labels):
    """−(1/N) Σ_n log p[n, labels[n]]: the mean of −log_softmax at the labels. Returns (1,)."""
    z, log_sum = shift_logits(logits)
    return (log_sum - nd.pick(z, labels, keepdims=True)).mean()  # log_softmax is only computed at the labels


def shift_logits(logits):
    """z = logits − the maximum of their row (N, K), and log Σ_j e^z[n,j] of each row (N, 1)

    The shift does not change log p, and it keeps e^z from overflowing. So the maximum needs no gradient.
    """
    z = nd.broadcast_sub(logits, nd.stop_gradient(logits.max(axis=1, keepdims=True)))
    return z, nd.log(nd.exp(z).sum(axis=1, keepdims=True))


def is_correct(logits, labels):
    """1 where the largest logit is at the label, else 0; ties go to the lowest class.   Returns (N,)"""
    return logits.argmax(axis=1) == nd.cast(labels, dtype=np.dtype(logits.dtype).name)


def accuracy(logits, labels):
    """The share of rows that are correct.   Returns (1,)"""
    return is_correct(logits, labels).mean()
