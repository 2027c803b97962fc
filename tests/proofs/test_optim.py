"""Every rule is MXNet's over many steps of changing gradients, and its equation in float64."""

import inspect
import math
import re

import numpy as np
import pytest
from commands import module
from hypothesis import given, settings
from hypothesis import strategies as st
from proof import DIFFERENCES, difference

from tinymnist.backend import mx, nd
from tinymnist.optim import RULES, Optimizer

gluon_rule = module("gluon_networks").gluon_rule
NEAR_1 = float(np.float32(0.9999))  # MXNet's rmsprop computes 1 - gamma1 in float32, where 0.9999 is this number
TINY = float(np.finfo(np.float32).tiny)
SETTINGS = [
    ("sgd", {"lr": 0.1}),
    ("momentum", {"lr": 0.1, "momentum": 0}),
    ("momentum", {"lr": 0.2, "momentum": 0.9}),
    ("momentum", {"lr": 0.02, "momentum": 0.99}),
    ("adagrad", {"lr": 0.9}),
    ("adagrad", {"lr": 0.05, "eps": 1e-2}),
    ("rmsprop", {"lr": 0.03}),
    ("rmsprop", {"lr": 0.001, "rho": 0.5, "eps": 1e-5}),
    ("rmsprop", {"lr": 0.01, "rho": NEAR_1, "eps": 1e-2}),
    ("adadelta", {}),
    ("adadelta", {"rho": 0.5, "eps": 1e-8}),
    ("adadelta", {"rho": 0.9999}),
    ("adadelta", {"rho": 0.9, "eps": 1e-2}),
]
DEFAULTS = {
    "sgd": {"lr": None},
    "momentum": {"lr": None, "momentum": 0.9},
    "adagrad": {"lr": None, "eps": 1e-7},
    "rmsprop": {"lr": None, "rho": 0.9, "eps": 1e-8},
    "adadelta": {"rho": 0.9, "eps": 1e-5},
}


def draw_path(shape, steps=40):
    """Weights, and gradients none like the one before: of every size from 1e-3 to 10, and some elements 0"""
    rng = np.random.default_rng(0)
    sizes = rng.choice([0, 1e-3, 0.1, 1, 10], (steps, *shape), p=[0.1, 0.2, 0.2, 0.4, 0.1])
    return rng.normal(size=shape), sizes * rng.normal(size=sizes.shape)


def walk(step, device):
    """The weights after each of forty calls of step(w, g)"""
    start, gradients = draw_path((20, 30))
    w, path = nd.array(start, device), []
    for g in gradients:
        step(w, nd.array(g, device))
        path.append(w.asnumpy())
    return np.array(path)


@pytest.mark.parametrize("rule, hyper", SETTINGS)
def test_a_rule_equals_the_built_in(rule, hyper, device):
    name, theirs = gluon_rule(rule, hyper)
    builtin = mx.optimizer.create(name, wd=0, **theirs)
    state = builtin.create_state(0, nd.zeros((20, 30), device))
    expected = walk(lambda w, g: builtin.update(0, w, g, state), device)
    worst = difference(walk(Optimizer(rule, **hyper).step, device), expected)
    DIFFERENCES[rule, "float32"].append(worst)
    assert worst <= 1e-5


# The equations once more, in numpy and float64.


def sgd(w, g, lr):
    return [w - lr * g]


def momentum(w, g, m, lr, momentum):
    m = momentum * m - lr * g
    return w + m, m


def adagrad(w, g, h, lr, eps):
    h = h + g**2
    return w - lr * g / np.sqrt(h + eps), h


def rmsprop(w, g, n, lr, rho, eps):
    n = rho * n + (1 - rho) * g**2
    return w - lr * g / np.sqrt(n + eps), n


def adadelta(w, g, a, b, rho, eps):
    a = rho * a + (1 - rho) * g**2
    delta = np.sqrt(b + eps) / np.sqrt(a + eps) * g
    return w - delta, a, rho * b + (1 - rho) * delta**2


@pytest.mark.parametrize("equation", [sgd, momentum, adagrad, rmsprop, adadelta])
@settings(max_examples=20)
@given(lr=st.floats(1e-4, 1), decay=st.floats(0, 0.9999), eps=st.floats(1e-8, 1e-2))
def test_a_rule_equals_its_equation_in_float64(device, equation, lr, decay, eps):
    name, values = equation.__name__, {"lr": lr, "momentum": decay, "rho": decay, "eps": eps}
    hyper = {key: values[key] for key in RULES[name].hyper}
    rule, (w, gradients) = Optimizer(name, **hyper), draw_path((7,))
    ours, state = nd.array(w, device, "float64"), [np.zeros(7)] * RULES[name].states
    for g in gradients:
        rule.step(ours, nd.array(g, device, "float64"))
        w, *state = equation(w, g, *state, **hyper)
        assert all(difference(a.asnumpy(), b) <= 1e-12 for a, b in zip([ours, *rule.state], [w, *state]))


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_works_in_place_and_leaves_the_gradient(rule):
    optimizer = Optimizer(rule, **{"lr": 0.1} if "lr" in RULES[rule].hyper else {})
    vector, g = nd.ones(6), nd.array([1.0, -2.0, 3.0])
    optimizer.step(vector[:3], g)
    assert np.sign(1 - vector.asnumpy()).tolist() == [1, -1, 1, 0, 0, 0]  # downhill
    assert g.asnumpy().tolist() == [1, -2, 3]


def test_state_is_zeros_like_the_weights(device):
    optimizer, w = Optimizer("adadelta"), nd.ones((2, 3), device, "float64")
    assert optimizer.state is None
    optimizer.allocate(w)
    for s in optimizer.state:
        assert (s.shape, s.dtype, s.context, s.sum().asscalar()) == ((2, 3), np.float64, device, 0)
    first, _ = optimizer.state
    optimizer.step(w, nd.ones((2, 3), device, "float64"))
    assert first is optimizer.state[0]  # the step uses it, and makes no other
    assert first.asnumpy() == pytest.approx(0.1)


@pytest.mark.parametrize("name", RULES)
def test_the_table_of_rules_agrees_with_the_functions(name):
    rule, signature = RULES[name], inspect.getfullargspec(RULES[name].update)
    assert (signature.args[:2], len(signature.args) - 2) == (["w", "g"], rule.states)
    defaults = signature.kwonlydefaults or {}
    assert rule.hyper == DEFAULTS[name] == {key: defaults.get(key) for key in signature.kwonlyargs}


def test_an_optimizer_shows_its_hyper_parameters_and_a_step_may_replace_them():
    assert repr(Optimizer("rmsprop", lr=1, eps=0.5)) == "rmsprop (lr 1, rho 0.9, eps 0.5)"
    optimizer, w = Optimizer("sgd", lr=0.5), nd.ones((2,))
    optimizer.step(w, nd.ones((2,)), lr=0.25)
    assert w.asnumpy().tolist() == [0.75, 0.75]
    optimizer.step(w, nd.ones((2,)))
    assert w.asnumpy().tolist() == [0.25, 0.25] and optimizer.hyper == {"lr": 0.5}


def test_numpys_numbers_are_numbers():
    hyper = Optimizer("momentum", lr=np.float32(0.5), momentum=np.int64(0)).hyper
    assert hyper == {"lr": 0.5, "momentum": 0} and [*map(type, hyper.values())] == [float, int]


def test_an_optimizer_belongs_to_one_vector():
    optimizer, first, second = Optimizer("momentum", lr=0.1), nd.ones(3), nd.ones(3)
    optimizer.step(first, nd.ones(3))
    with pytest.raises(
        ValueError, match="this momentum has the state of other weights; each model needs its own Optimizer"
    ):
        optimizer.step(second, nd.ones(3))
    optimizer.allocate(second)  # starts again
    optimizer.step(second, nd.ones(3))
    np.testing.assert_array_equal(first.asnumpy(), second.asnumpy())


WRONG_NAMES = [
    ("adam", {}, "no update rule 'adam'; the rules are sgd, momentum, adagrad, rmsprop, adadelta"),
    ("momentum", {"momentum": 0.5}, "momentum needs lr"),
    ("sgd", {"lr": 0.1, "rho": 0.9}, "sgd has no hyper-parameter 'rho'; it has lr"),
    ("adadelta", {"lr": 0.1}, "adadelta has no hyper-parameter 'lr'; it has rho, eps"),
]


@pytest.mark.parametrize("name, hyper, sentence", WRONG_NAMES)
def test_unknown_and_missing_names_are_refused(name, hyper, sentence):
    with pytest.raises(ValueError, match=sentence):
        Optimizer(name, **hyper)


RANGES = [  # hyper-parameter of a rule, the lowest value and the bound of its range, values outside
    ("lr", "sgd", TINY, math.inf, [-1, 0, 1e-320, math.inf, math.nan, "0.1", None]),
    ("eps", "adagrad", TINY, math.inf, [0, 1e-50, math.inf]),
    ("momentum", "momentum", 0, 1, [-0.1, 1]),
    ("rho", "rmsprop", 0, 1, [-0.1, 1]),
]


@pytest.mark.parametrize("key, rule, lowest, bound, outside", RANGES)
def test_values_out_of_range_are_refused(key, rule, lowest, bound, outside):
    Optimizer(rule, **{"lr": 1, key: lowest})
    for value in outside:
        sentence = f"{key} of {rule} must be a number from {lowest:.2g} to below {bound}, not {value!r}"
        with pytest.raises(ValueError, match=re.escape(sentence)):
            Optimizer(rule, **{"lr": 1, key: value})
