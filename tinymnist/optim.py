"""Update rules. Each works in place on one vector w of all weights, its gradient g, and state vectors that start at 0.

The equations are those of MXNet's built-in rules: eps stands inside the root in adagrad and rmsprop (papers and PyTorch
add it outside), and momentum's buffer holds the learning rate. The loss is a mean over the batch, so no rule knows the
batch size.
"""

from __future__ import annotations

import inspect
import math

import numpy as np

from tinymnist.backend import nd


def sgd(w, g, *, lr):
    """w ← w − lr g.   Robbins, Monro 1951"""
    w -= lr * g


def momentum(w, g, m, *, lr, momentum=0.9):
    """m ← momentum m − lr g;  w ← w + m.   Polyak 1964; the buffer is minus the step, lr inside it"""
    m *= momentum
    m -= lr * g
    w += m


def adagrad(w, g, h, *, lr, eps=1e-7):
    """h ← h + g²;  w ← w − lr g / √(h + eps).   Duchi, Hazan, Singer 2011; eps inside the root"""
    h += g * g
    w -= lr * g / nd.sqrt(h + eps)


def rmsprop(w, g, n, *, lr, rho=0.9, eps=1e-8):
    """n ← rho n + (1 − rho) g²;  w ← w − lr g / √(n + eps).

    Tieleman, Hinton 2012; eps inside the root; MXNet calls rho gamma1.
    """
    n *= rho
    n += (1 - rho) * g * g
    w -= lr * g / nd.sqrt(n + eps)


def adadelta(w, g, a, b, *, rho=0.9, eps=1e-5):
    """a ← rho a + (1 − rho) g²;  δ = √(b + eps) / √(a + eps) · g;  b ← rho b + (1 − rho) δ²;  w ← w − δ.

    Zeiler 2012; no lr.
    """
    a *= rho
    a += (1 - rho) * g * g
    delta = nd.sqrt(b + eps) / nd.sqrt(a + eps) * g
    b *= rho
    b += (1 - rho) * delta * delta
    w -= delta


RULES = {rule.__name__: rule for rule in (sgd, momentum, adagrad, rmsprop, adadelta)}
SMALLEST = float(np.finfo(np.float32).tiny)  # smaller numbers are 0 in float32, or MXNet does not take them
RANGES = {  # hyper-parameter: from where on, below what, in words
    "lr": (SMALLEST, math.inf, f"positive, finite and at least {SMALLEST:.2g}"),
    "momentum": (0, 1, "from 0 to below 1"),
    "rho": (0, 1, "from 0 to below 1"),
    "eps": (SMALLEST, math.inf, f"positive, finite and at least {SMALLEST:.2g}"),
}


def hyperparameters(name):
    """A rule's hyper-parameters with their defaults, None where there is none: {"lr": None, "eps": 1e-07}"""
    if name not in RULES:
        raise ValueError(f"there is no update rule {name!r}; the rules are {', '.join(RULES)}")
    keywords = [p for p in inspect.signature(RULES[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return {p.name: None if p.default is p.empty else p.default for p in keywords}


class Optimizer:
    """A rule with its hyper-parameters and its state: Optimizer("adagrad", lr=0.05), then step(w, g) again and again.

    ValueError: an unknown rule, a hyper-parameter that the rule does not have or lacks, or one out of range.
    """

    def __init__(self, name, **given):
        defaults = hyperparameters(name)
        for key, value in given.items():
            if key not in defaults:
                raise ValueError(f"{name} has no hyper-parameter {key!r}; it has {', '.join(defaults)}")
            low, high, wanted = RANGES[key]
            if not isinstance(value, (int, float)) or not low <= value < high:
                raise ValueError(f"{key} of {name} must be {wanted}, not {value!r}")
        self.name, self.rule, self.hyper = name, RULES[name], {**defaults, **given}
        if None in self.hyper.values():
            raise ValueError(f"{name} needs {', '.join(k for k, v in self.hyper.items() if v is None)}")
        self.states = len(inspect.signature(self.rule).parameters) - len(defaults) - 2
        self.state = None

    def prepare(self, w):
        """State vectors of zeros, like w and on its device; a step makes them itself where there are none yet."""
        self.state = [nd.zeros_like(w) for _ in range(self.states)]

    def step(self, w, g):
        """One update of the vector w, in place, by its gradient g."""
        if self.state is None:
            self.prepare(w)
        self.rule(w, g, *self.state, **self.hyper)
