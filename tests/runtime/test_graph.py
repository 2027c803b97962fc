"""A function that is replayed as a static graph gives the same numbers, to the last bit."""

import numpy as np
import pytest

import tinymnist as tm
from tinymnist.backend import autograd, mx, nd
from tinymnist.runtime.graph import Replay, replay_step
from tinymnist.windows import CONSTANTS, constant


def same(a, b):
    return a.asnumpy().tobytes() == b.asnumpy().tobytes()


@pytest.mark.parametrize("rule", tm.optim.RULES)
@pytest.mark.parametrize("make", tm.models.MODELS.values(), ids=tm.models.MODELS)
def test_training_is_the_same(make, rule):
    hyper = {"lr": 0.01} if "lr" in tm.optim.RULES[rule].hyper else {}

    def train(compile):
        data = tm.load("digits")
        settings = {"epochs": 2, "batch_size": 24, "limit": 100, "seed": 3, "lr_decay": 0.5}  # the last batch has 4
        return tm.fit(make(), tm.Optimizer(rule, **hyper), data, compile=compile, **settings)

    plain, replayed = train(False), train(True)
    assert same(plain.model.weights, replayed.model.weights)
    assert all(map(same, plain.optimizer.state, replayed.optimizer.state))
    for a, b in zip(plain.history, replayed.history):
        assert (a.loss, a.train_accuracy, a.test_loss, a.test_accuracy) == (
            b.loss,
            b.train_accuracy,
            b.test_loss,
            b.test_accuracy,
        )


def test_a_graph_is_recorded_once_for_each_shape():
    calls = []
    w = nd.array([2.0, 3.0])
    w.attach_grad()

    def product(x):
        calls.append(x.shape)
        return [w * x, w + x]

    replay = Replay(product, [w])
    for x in (nd.array([1.0, 5.0]), nd.array([4.0, 6.0]), nd.array([[1.0, 2.0]]), nd.array([7.0, 8.0])):
        with autograd.record():
            results = replay(x)
        results[0].backward()
        assert same(results[0], w * x) and same(results[1], w + x) and same(w.grad, x.reshape((2,)))
    assert calls == [(2,), (1, 2)]


def test_results_may_differ_in_shape_and_only_the_first_has_a_gradient():
    w = nd.array([2.0, 3.0])
    w.attach_grad()
    replay = Replay(lambda x: [(w * x).sum(), w * w, nd.stack(x, w, x)], [w])
    for _ in range(2):
        with autograd.record():
            results = replay(nd.array([4.0, 5.0]))
        autograd.backward([results[0], results[1]])
        assert same(w.grad, nd.array([4.0, 5.0]))
        assert [result.shape for result in results] == [(1,), (2,), (3, 2)]
        assert same(results[0], nd.array([23.0])) and same(results[1], nd.array([4.0, 9.0]))
        assert same(results[2], nd.array([[4.0, 5.0], [2.0, 3.0], [4.0, 5.0]]))


def test_nothing_is_kept_for_a_gradient_outside_recording():
    w = nd.ones((2,))
    w.attach_grad()
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


@pytest.mark.parametrize("rule, hyper", [("sgd", {"lr": 0.1}), ("adagrad", {"lr": 0.1}), ("adadelta", {"rho": 0.7})])
def test_a_replayed_update_is_the_optimizers_step(rule, hyper):
    rng = np.random.default_rng(0)
    w = nd.array(rng.normal(size=30))
    twin, g = w.copy(), nd.zeros((30,))
    plain, replayed = tm.Optimizer(rule, **hyper), tm.Optimizer(rule, **hyper)
    replayed.allocate(twin)
    changes = {"lr": 0.05} if "lr" in hyper else {"eps": 1e-3}
    for change in ({}, changes):
        update = replay_step(replayed, twin, g, change)
        for _ in range(10):
            g[:] = nd.array(rng.normal(size=30))
            plain.step(w, g, **change)
            update()
            assert same(w, twin) and all(map(same, plain.state, replayed.state))


def test_constants_are_known_to_graphs_recorded_before_and_after():
    def count(n):
        return nd.array(range(n))

    w, x = nd.array([2.0, 3.0]), nd.array([4.0, 5.0])
    w.attach_grad()

    def function(x):
        return [w * x * constant(count, 2) + constant(count, 1)]

    for f in (function, Replay(function, [w]), function, Replay(function, [w])):  # a plain backward between graphs
        for _ in range(2):
            with autograd.record():
                y = f(x)[0]
            y.backward()
            assert same(y, nd.array([0.0, 15.0])) and same(w.grad, nd.array([0.0, 5.0]))
    assert [key for key in CONSTANTS if key[0] is count] == [(count, (2,)), (count, (1,))]


def test_an_unknown_array_is_refused():
    other = nd.array([1.0, 2.0])  # its value would be frozen into the graph
    with pytest.raises(ValueError, match="neither input nor parameter"):
        Replay(lambda x: [x * other])(nd.ones((2,)))


@pytest.mark.parametrize("copy", [lambda x: x.astype("float64"), lambda x: (2 * x).copyto(x.context)])
def test_a_copy_that_could_block_the_engine_is_refused(copy):
    with pytest.raises(ValueError, match=r"nd\.cast does not block"):
        Replay(lambda x: [copy(x)])(nd.ones((2,)))
    assert Replay(lambda x: [nd.cast(x, dtype="float64")])(nd.ones((2,)))[0].dtype == np.float64
