"""A function that is replayed as a static graph gives the same numbers, to the last bit."""

import numpy as np
import pytest
from runs import RULES, SMALL, bits, digits, make_run

from tinymnist.backend import autograd, mx, nd
from tinymnist.runtime.graph import Replay
from tinymnist.windows import CONSTANTS, constant


@pytest.fixture
def w():
    """A parameter: a marked array"""
    w = nd.array([2.0, 3.0])
    w.attach_grad()
    return w


def same(a, b):
    return a.shape == b.shape and a.asnumpy().tobytes() == b.asnumpy().tobytes()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", SMALL)
def test_training_is_the_same(model, rule):
    """The last batch has 4 images. The test images are a batch as large as the others. The learning rate changes."""
    settings = {"batch_size": 24, "seed": 3, "lr_decay": 0.5}
    plain, replayed = (make_run(digits(100, 24), model, rule, compile=compile, **settings) for compile in (False, True))
    assert bits(plain.train()) == bits(replayed.train())


def test_a_graph_is_recorded_once_for_each_shape_and_has_gradients_of_its_first_result(w):
    def function(x):
        calls.append(x.shape)
        return [w * x, (w * w).sum(), nd.stack(x, w + x)]

    calls, replay = [], Replay(function, [w])
    for x in (nd.array([1.0, 5.0]), nd.array([4.0, 6.0]), nd.array([[1.0, 2.0]]), nd.array([7.0, 8.0])):
        with autograd.record():
            results = replay(x)
        autograd.backward(results[:2])
        assert same(w.grad, x.reshape((2,)))
        assert all(map(same, results, [w * x, (w * w).sum(), nd.stack(x, w + x)]))
    assert calls == [(2,), (1, 2)]


def test_nothing_is_kept_for_a_gradient_outside_recording(w):
    replay = Replay(lambda x: [w * x], [w])
    for _ in range(2):  # the recording itself, and a replay
        with pytest.raises(mx.MXNetError, match="not in a computational graph"):
            replay(nd.ones((2,)))[0].backward()


def test_every_replay_draws_new_numbers_from_the_same_stream():
    def noise(x):
        return [x * nd.random.uniform_like(x)]

    x, replay = nd.ones((50,)), Replay(noise)
    mx.random.seed(5)
    plain = [noise(x)[0] for _ in range(3)]
    mx.random.seed(5)
    replayed = [replay(x)[0] for _ in range(3)]  # the first is the recording itself
    assert all(map(same, plain, replayed)) and not same(plain[0], plain[1])


def test_constants_are_known_to_graphs_recorded_before_and_after(w):
    def count(n):
        return nd.array(range(n))

    def function(x):
        return [w * x * constant(count, 2) + constant(count, 1)]

    for f in (function, Replay(function, [w]), function, Replay(function, [w])):  # a plain backward between graphs
        for _ in range(2):
            with autograd.record():
                y = f(nd.array([4.0, 5.0]))[0]
            y.backward()
            assert same(y, nd.array([0.0, 15.0])) and same(w.grad, nd.array([0.0, 5.0]))
    assert [key for key in CONSTANTS if key[0] is count] == [(count, (2,)), (count, (1,))]


@pytest.mark.parametrize(
    "function, sentence",
    [
        (lambda x: x * nd.ones((2,)), "neither input nor parameter"),  # a graph would freeze its value
        (lambda x: x.astype("float64"), r"nd\.cast does not block"),  # it could block MXNet's engine
        (lambda x: (2 * x).copyto(x.context), r"nd\.cast does not block"),
    ],
)
def test_an_unknown_array_and_a_copy_are_refused(function, sentence):
    with pytest.raises(ValueError, match=sentence):
        Replay(lambda x: [function(x)])(nd.ones((2,)))
    assert Replay(lambda x: [nd.cast(x, dtype="float64")])(nd.ones((2,)))[0].dtype == np.float64
