"""Initial values lie within their bounds, have the right distribution, and equal Gluon's for the same seed."""

import math

import numpy as np
import pytest

from tinymnist import init
from tinymnist.backend import mx, nd


def draw_seeded(draw, shape, *number, **where):
    mx.random.seed(1)
    return draw(shape, *number, **where).asnumpy()


PAIRS = [
    (init.normal, [], mx.init.Normal()),
    (init.normal, [1.0], mx.init.Normal(1.0)),
    (init.uniform, [], mx.init.Uniform()),
    (init.uniform, [2.0], mx.init.Uniform(2.0)),
    (init.xavier, [], mx.init.Xavier()),
    (init.xavier, [2.24], mx.init.Xavier(rnd_type="uniform", factor_type="avg", magnitude=2.24)),
]


@pytest.mark.parametrize("draw, number, gluon", PAIRS)
@pytest.mark.parametrize("shape", [(10, 784), (1, 1), (20, 1, 5, 5), (6, 4, 2, 3)])
def test_the_same_seed_gives_gluons_weights(draw, number, gluon, shape):
    theirs = nd.zeros(shape)
    mx.random.seed(1)
    gluon(mx.init.InitDesc("weight"), theirs)
    ours = draw_seeded(draw, shape, *number)
    np.testing.assert_allclose(ours, theirs.asnumpy(), rtol=1e-6)
    assert (draw(shape).asnumpy() != ours).any()  # without the seed, other numbers


@pytest.mark.parametrize("scale", [0.01, 3])
def test_normal_and_uniform_have_their_distribution(scale, dtype, device):
    shape = (400, 500)  # enough draws to see a moment to half a percent
    normal = draw_seeded(init.normal, shape, scale, ctx=device, dtype=dtype) / scale
    uniform = draw_seeded(init.uniform, shape, scale, ctx=device, dtype=dtype) / scale
    for w, deviation in ((normal, 1), (uniform, 1 / math.sqrt(3))):
        assert (w.shape, w.dtype) == (shape, dtype)
        assert w.mean() == pytest.approx(0, abs=0.01)
        assert w.std() == pytest.approx(deviation, rel=0.01)
    assert (np.abs(normal) < 1).mean() == pytest.approx(0.6827, abs=0.005)
    assert np.abs(normal).max() > 3
    assert uniform.max() == pytest.approx(1, abs=1e-3) == -uniform.min()


@pytest.mark.parametrize("magnitude", [3, 1])
@pytest.mark.parametrize("shape, fan_out, fan_in", [((10, 784), 10, 784), ((4, 5, 3, 7), 4 * 3 * 7, 5 * 3 * 7)])
def test_xavier_is_uniform_with_a_bound_from_fan_in_and_fan_out(shape, fan_out, fan_in, magnitude, dtype, device):
    ours = draw_seeded(init.xavier, shape, magnitude, ctx=device, dtype=dtype)
    bound = math.sqrt(magnitude / ((fan_in + fan_out) / 2))
    np.testing.assert_array_equal(ours, draw_seeded(init.uniform, shape, bound, ctx=device, dtype=dtype))
