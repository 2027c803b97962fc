"""Update rules. Each changes the vector w of all parameters, by its gradient g and by state vectors that start at 0.

The equations are those of MXNet's own rules: eps, against a division by 0, is inside the square root in adagrad and
rmsprop (PyTorch adds it outside), and m of momentum contains lr. The loss is a mean over the batch, so no rule divides
by the batch size.
"""

import math
from collections import namedtuple

import numpy as np

from tinymnist.backend import nd


def sgd(w, g, *, lr):
    """w ← w − lr g.   H. Robbins, S. Monro 1951"""
    w -= lr * g


def momentum(w, g, m, *, lr, momentum=0.9):
    """m ← μ m − lr g;  w ← w + m, with μ = momentum: steps in one direction add up.   B. Polyak 1964"""
    m *= momentum
    m -= lr * g
    w += m


def adagrad(w, g, h, *, lr, eps=1e-7):
    """h ← h + g²;  w ← w − lr g / √(h + eps): shorter steps where gradients were large.

    J. Duchi, E. Hazan, Y. Singer 2011
    """
    h += g * g
    w -= lr * g / nd.sqrt(h + eps)


def rmsprop(w, g, h, *, lr, rho=0.9, eps=1e-8):
    """h ← rho h + (1 − rho) g²;  w ← w − lr g / √(h + eps): adagrad that forgets old gradients.

    T. Tieleman, G. Hinton 2012; MXNet calls rho gamma1
    """
    h *= rho
    h += (1 - rho) * g * g
    w -= lr * g / nd.sqrt(h + eps)


def adadelta(w, g, a, b, *, rho=0.9, eps=1e-5):
    """a ← rho a + (1 − rho) g²;  δ = √(b + eps) / √(a + eps) · g;  b ← rho b + (1 − rho) δ²;  w ← w − δ.

    a, b: means of g², δ². Steps have the scale of earlier steps: no learning rate is needed. M. Zeiler 2012
    """
    a *= rho
    a += (1 - rho) * g * g
    delta = nd.sqrt(b + eps) / nd.sqrt(a + eps) * g
    b *= rho
    b += (1 - rho) * delta * delta
    w -= delta


Rule = namedtuple("Rule", "update states hyper")  # states: number of state vectors
RULES = {  # with the defaults above; None: required
    "sgd": Rule(sgd, 0, {"lr": None}),
    "momentum": Rule(momentum, 1, {"lr": None, "momentum": 0.9}),
    "adagrad": Rule(adagrad, 1, {"lr": None, "eps": 1e-7}),
    "rmsprop": Rule(rmsprop, 1, {"lr": None, "rho": 0.9, "eps": 1e-8}),
    "adadelta": Rule(adadelta, 2, {"rho": 0.9, "eps": 1e-5}),
}
SMALLEST = float(np.finfo(np.float32).tiny)  # below it, float32 loses digits
# (low, high): low ≤ value < high
RANGES = {"lr": (SMALLEST, math.inf), "momentum": (0, 1), "rho": (0, 1), "eps": (SMALLEST, math.inf)}


class Optimizer:
    """A rule with its hyper-parameters and its state: Optimizer("adagrad", lr=0.05), then step(w, g) again and again.

    Raises ValueError for an unknown rule, and for a hyper-parameter that is unknown, missing or out of range.
    """

    def __init__(self, name, **hyper):
        if name not in RULES:
            raise ValueError(f"there is no update rule {name!r}; the rules are {', '.join(RULES)}")
        self.name, self.rule = name, RULES[name]
        self.owner, self.state = None, None  # the weights that it updates, and its state vectors
        # numpy's numbers become Python's
        hyper = {key: value.item() if isinstance(value, np.generic) else value for key, value in hyper.items()}
        for key, value in hyper.items():
            if key not in self.rule.hyper:
                raise ValueError(f"{name} has no hyper-parameter {key!r}; it has {', '.join(self.rule.hyper)}")
            low, high = RANGES[key]
            if not isinstance(value, (int, float)) or not low <= value < high:
                raise ValueError(f"{key} of {name} must be a number from {low:.2g} to below {high}, not {value!r}")
        self.hyper = {**self.rule.hyper, **hyper}
        missing = [key for key, value in self.hyper.items() if value is None]
        if missing:
            raise ValueError(f"{name} needs {', '.join(missing)}")

    def __repr__(self):
        return f"{self.name} ({', '.join(f'{key} {value:g}' for key, value in self.hyper.items())})"

    def allocate(self, w):
        """State vectors of zeros, like w and on its device. The first step calls it if nobody has."""
        self.owner, self.state = w, [nd.zeros_like(w) for _ in range(self.rule.states)]

    def step(self, w, g, **hyper):
        """Update the vector w in place by its gradient g. `hyper` replaces hyper-parameters in this step only."""
        if self.state is None:
            self.allocate(w)
        if w is not self.owner:
            raise ValueError(f"this {self.name} has the state of other weights; each model needs its own Optimizer")
        self.rule.update(w, g, *self.state, **{**self.hyper, **hyper})
