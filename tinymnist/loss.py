"""From logits to a loss and to the accuracy.

The logits z (N, K) are what the last layer returns: one number per example and class; the largest one is the guess.
The labels (N,) are whole numbers from 0 to K − 1. softmax turns logits into probabilities p[k] = e^z[k] / Σ_j e^z[j].
The loss L is the mean of −log p at the label: small where the true class is probable. The loss and its gradient, with
[true] = 1 and [false] = 0:

    L = (1/N) Σ_n (log Σ_j e^z[n,j] − z[n, labels[n]])
    ∂ log Σ_j e^z[n,j] / ∂z[n,k] = e^z[n,k] / Σ_j e^z[n,j] = p[n,k]
    so ∂L / ∂z[n,k] = (p[n,k] − [k = labels[n]]) / N

autograd finds the same: test_the_gradient_is_softmax_minus_one_hot in tests/proofs/test_loss.py compares the two.
"""

from tinymnist.backend import nd


def log_softmax(logits):
    """log p[n,k] = z[n,k] − log Σ_j e^z[n,j]   (N, K) -> (N, K)"""
    # Subtracting each row's maximum keeps e^z from overflowing. It does not change the result: no gradient is needed.
    shifted = logits - nd.stop_gradient(logits.max(axis=1, keepdims=True))
    return shifted - nd.log(nd.exp(shifted).sum(axis=1, keepdims=True))


def softmax(logits):
    """p[n,k] = e^z[n,k] / Σ_j e^z[n,j]; rows sum to 1   (N, K) -> (N, K)"""
    return nd.exp(log_softmax(logits))


def softmax_cross_entropy(logits, labels):
    """−(1/N) Σ_n log p[n, labels[n]]   Returns (1,)"""
    return -nd.pick(log_softmax(logits), labels).mean()


def is_correct(logits, labels):
    """1 where the largest logit is at the label, else 0; ties go to the lowest class   Returns (N,)"""
    return logits.argmax(axis=1) == nd.cast(labels, dtype=logits.dtype)  # == needs equal types


def accuracy(logits, labels):
    """The share of examples that are correct   Returns (1,)"""
    return is_correct(logits, labels).mean()
