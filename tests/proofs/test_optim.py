"""Every rule is MXNet's over many steps of changing gradients, and its equation in float64."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from proof import DIFFERENCES, difference

from tinymnist import optim
from tinymnist.backend import mx, nd

STEPS = 40
NEAR_1 = float(np.float32(0.9999))  # MXNet's rmsprop computes 1 - gamma1 in float32, where 0.9999 is this number
SETTINGS = [
    ("sgd", {"lr": 0.1}),
    ("sgd", {"lr": 1e-3}),
    ("momentum", {"lr": 0.1, "momentum": 0}),
    ("momentum", {"lr": 0.01, "momentum": 0.5}),
    ("momentum", {"lr": 0.2, "momentum": 0.9}),
    ("momentum", {"lr": 0.02, "momentum": 0.99}),
    ("adagrad", {"lr": 0.9}),
    ("adagrad", {"lr": 0.05, "eps": 1e-8}),
    ("adagrad", {"lr": 0.05, "eps": 1e-5}),
    ("adagrad", {"lr": 0.05, "eps": 1e-2}),
    ("rmsprop", {"lr": 0.03}),
    ("rmsprop", {"lr": 0.001, "rho": 0.5}),
    ("rmsprop", {"lr": 0.01, "rho": 0.99, "eps": 1e-5}),
    ("rmsprop", {"lr": 0.01, "rho": NEAR_1, "eps": 1e-2}),
    ("adadelta", {}),
    ("adadelta", {"rho": 0.5, "eps": 1e-8}),
    ("adadelta", {"rho": 0.99, "eps": 1e-6}),
    ("adadelta", {"rho": 0.9999}),
    ("adadelta", {"rho": 0.9, "eps": 1e-2}),
]
MXNETS = {  # our rule: MXNet's, and its names of our hyper-parameters
    "sgd": ("sgd", {"lr": "learning_rate"}),
    "momentum": ("sgd", {"lr": "learning_rate", "momentum": "momentum"}),
    "adagrad": ("adagrad", {"lr": "learning_rate", "eps": "eps"}),
    "rmsprop": ("rmsprop", {"lr": "learning_rate", "rho": "gamma1", "eps": "epsilon"}),
    "adadelta": ("adadelta", {"rho": "rho", "eps": "epsilon"}),
}
each_setting = pytest.mark.parametrize("rule, hyper", SETTINGS)
each_shape = pytest.mark.parametrize("shape", [(1,), (1000,), (10, 7), (3, 2, 5, 5)])


def gradients(shape, seed=0):
    """Forty gradients, none like the one before: of every size from 1e-3 to 10, and some elements 0"""
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=shape) * rng.choice([0, 1e-3, 0.1, 1, 10], shape, p=[0.1, 0.2, 0.2, 0.4, 0.1])
        for _ in range(STEPS)
    ]


def walk(step, shape, dtype="float32", device=None):
    """The weights after each of forty calls of step(w, g)"""
    w, path = nd.array(np.random.default_rng(9).normal(size=shape), device, dtype), []
    for g in gradients(shape):
        step(w, nd.array(g, device, dtype))
        path.append(w.asnumpy())
    return np.array(path)


@each_shape
@each_setting
def test_a_rule_equals_the_built_in(rule, hyper, shape, device):
    name, names = MXNETS[rule]
    builtin = mx.optimizer.create(name, wd=0, **{names[key]: value for key, value in hyper.items()})
    state = builtin.create_state(0, nd.zeros(shape, device))
    ours = walk(optim.Optimizer(rule, **hyper).step, shape, device=device)
    theirs = walk(lambda w, g: builtin.update(0, w, g, state), shape, device=device)
    worst = difference(ours, theirs)
    DIFFERENCES[rule, "float32"].append(worst)
    assert worst <= 1e-5


# The equations once more, in numpy and float64.


def sgd(w, g, lr):
    return [w - lr * g]


def momentum(w, g, m=0.0, lr=None, momentum=0.9):
    m = momentum * m - lr * g
    return w + m, m


def adagrad(w, g, h=0.0, lr=None, eps=1e-7):
    h = h + g**2
    return w - lr * g / np.sqrt(h + eps), h


def rmsprop(w, g, n=0.0, lr=None, rho=0.9, eps=1e-8):
    n = rho * n + (1 - rho) * g**2
    return w - lr * g / np.sqrt(n + eps), n


def adadelta(w, g, a=0.0, b=0.0, rho=0.9, eps=1e-5):
    a = rho * a + (1 - rho) * g**2
    delta = np.sqrt(b + eps) / np.sqrt(a + eps) * g
    return w - delta, a, rho * b + (1 - rho) * delta**2


EQUATIONS = {f.__name__: f for f in (sgd, momentum, adagrad, rmsprop, adadelta)}


def check_equation(rule, hyper, device=None):
    ours = optim.Optimizer(rule, **hyper)
    w, state = np.random.default_rng(9).normal(size=(7,)), []
    mine = nd.array(w, device, "float64")
    for g in gradients((7,)):
        ours.step(mine, nd.array(g, device, "float64"))
        w, *state = EQUATIONS[rule](w, g, *state, **hyper)
        for a, b in zip([mine, *ours.state], [w, *state]):
            assert difference(a.asnumpy(), b) <= 1e-12
    assert len(ours.state) == len(state) == ours.rule.states


@each_setting
def test_a_rule_equals_its_equation_in_float64(rule, hyper, device):
    check_equation(rule, hyper, device)


@given(st.sampled_from(list(EQUATIONS)), st.floats(1e-4, 1), st.floats(0, 0.9999), st.floats(1e-8, 1e-2))
def test_any_setting_equals_its_equation(rule, lr, decay, eps):
    every = {"lr": lr, "momentum": decay, "rho": decay, "eps": eps}
    check_equation(rule, {name: every[name] for name in optim.RULES[rule].hyper})


@pytest.mark.parametrize("rule", optim.RULES)
def test_a_rule_works_in_place_and_leaves_the_gradient(rule):
    optimizer = optim.Optimizer(rule, **{"lr": 0.1} if "lr" in optim.RULES[rule].hyper else {})
    vector, g = nd.ones(6), nd.array([1.0, -2.0, 3.0])
    optimizer.step(vector[:3], g)
    assert (vector.asnumpy()[:3] != 1).all()
    np.testing.assert_array_equal(vector.asnumpy()[3:], 1)
    np.testing.assert_array_equal(g.asnumpy(), [1, -2, 3])
    assert np.sign(1 - vector.asnumpy()[:3]).tolist() == [1, -1, 1]  # downhill


def test_state_is_zeros_like_the_weights(device):
    optimizer = optim.Optimizer("adadelta")
    assert optimizer.state is None
    optimizer.allocate(nd.ones((2, 3), device, "float64"))
    for s in optimizer.state:
        assert (s.shape, s.dtype, s.context, s.sum().asscalar()) == ((2, 3), np.float64, device, 0)
    first, _ = optimizer.state
    optimizer.step(nd.ones((2, 3), device, "float64"), nd.ones((2, 3), device, "float64"))
    assert first is optimizer.state[0]
    assert first.asnumpy() == pytest.approx(0.1)  # prepared state is kept, not made anew


@pytest.mark.parametrize("name", optim.RULES)
def test_the_table_of_rules_agrees_with_the_functions(name):
    rule = optim.RULES[name]
    code, defaults = rule.update.__code__, rule.update.__kwdefaults__ or {}
    positional, keywords = code.co_varnames[: code.co_argcount], code.co_varnames[code.co_argcount :]
    assert (positional[:2], len(positional) - 2) == (("w", "g"), rule.states)
    assert rule.hyper == {key: defaults.get(key) for key in keywords[: code.co_kwonlyargcount]}


def test_hyper_parameters_and_their_defaults():
    assert optim.RULES["sgd"].hyper == {"lr": None}
    assert optim.RULES["momentum"].hyper == {"lr": None, "momentum": 0.9}
    assert optim.RULES["adagrad"].hyper == {"lr": None, "eps": 1e-7}
    assert optim.RULES["rmsprop"].hyper == {"lr": None, "rho": 0.9, "eps": 1e-8}
    assert optim.RULES["adadelta"].hyper == {"rho": 0.9, "eps": 1e-5}
    optimizer = optim.Optimizer("rmsprop", lr=1, eps=0.5)
    assert optimizer.hyper == {"lr": 1, "rho": 0.9, "eps": 0.5}
    assert repr(optimizer) == "rmsprop (lr 1, rho 0.9, eps 0.5)"


def test_a_step_may_replace_a_hyper_parameter():
    optimizer, w = optim.Optimizer("sgd", lr=0.5), nd.ones((2,))
    optimizer.step(w, nd.ones((2,)), lr=0.25)
    assert w.asnumpy().tolist() == [0.75, 0.75]
    optimizer.step(w, nd.ones((2,)))
    assert w.asnumpy().tolist() == [0.25, 0.25] and optimizer.hyper == {"lr": 0.5}


@pytest.mark.parametrize(
    "name, hyper, sentence",
    [
        ("adam", {}, "no update rule 'adam'; the rules are sgd, momentum, adagrad, rmsprop, adadelta"),
        ("sgd", {}, "sgd needs lr"),
        ("momentum", {"momentum": 0.5}, "momentum needs lr"),
        ("sgd", {"lr": 0.1, "rho": 0.9}, "sgd has no hyper-parameter 'rho'; it has lr"),
        ("adadelta", {"lr": 0.1}, "adadelta has no hyper-parameter 'lr'; it has rho, eps"),
        ("sgd", {"lr": 0}, "lr of sgd must be a number from 1.2e-38 to below inf, not 0"),
        ("sgd", {"lr": -1}, "lr of sgd must be a number from 1.2e-38 to below inf, not -1"),
        ("sgd", {"lr": math.inf}, "lr of sgd must be a number from 1.2e-38 to below inf, not inf"),
        ("sgd", {"lr": math.nan}, "lr of sgd must be a number from 1.2e-38 to below inf, not nan"),
        ("sgd", {"lr": "0.1"}, "lr of sgd must be a number from 1.2e-38 to below inf, not '0.1'"),
        ("sgd", {"lr": None}, "lr of sgd must be a number from 1.2e-38 to below inf, not None"),
        ("momentum", {"lr": 1, "momentum": 1}, "momentum of momentum must be a number from 0 to below 1, not 1"),
        ("momentum", {"lr": 1, "momentum": -0.1}, "momentum of momentum must be a number from 0 to below 1, not -0.1"),
        ("adadelta", {"rho": 1}, "rho of adadelta must be a number from 0 to below 1, not 1"),
        ("rmsprop", {"lr": 1, "rho": -0.1}, "rho of rmsprop must be a number from 0 to below 1, not -0.1"),
        ("adagrad", {"lr": 1, "eps": 0}, "eps of adagrad must be a number from 1.2e-38 to below inf, not 0"),
        (
            "adagrad",
            {"lr": 1, "eps": math.inf},
            "eps of adagrad must be a number from 1.2e-38 to below inf, not inf",
        ),
        ("adagrad", {"lr": 1, "eps": 1e-50}, "eps of adagrad must be a number from 1.2e-38 to below inf, not 1e-50"),
        ("sgd", {"lr": 1e-320}, "lr of sgd must be a number from 1.2e-38 to below inf, not 1e-320"),
    ],
)
def test_invalid_hyper_parameters_are_refused(name, hyper, sentence):
    with pytest.raises(ValueError, match=sentence):
        optim.Optimizer(name, **hyper)


@pytest.mark.parametrize(
    "name, hyper", [("momentum", {"lr": 1, "momentum": 0}), ("adadelta", {"rho": 0}), ("sgd", {"lr": 2})]
)
def test_the_ends_of_a_range_are_allowed(name, hyper):
    optim.Optimizer(name, **hyper)
