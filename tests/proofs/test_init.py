"""Initial values lie within their bounds, have the right distribution, and equal Gluon's for the same seed."""

import math

import numpy as np
import pytest

from tinymnist import init
from tinymnist.backend import mx, nd

MANY = (400, 500)  # enough draws to see a moment to half a percent


def draw_seeded(draw, shape, *number, **where):
    mx.random.seed(1)
    return draw(shape, *number, **where)


@pytest.mark.parametrize(
    "ours, gluon",
    [
        ((init.normal, 0.01), mx.init.Normal(0.01)),
        ((init.normal, 1.0), mx.init.Normal(1.0)),
        ((init.normal,), mx.init.Normal()),
        ((init.uniform, 0.07), mx.init.Uniform(0.07)),
        ((init.uniform, 2.0), mx.init.Uniform(2.0)),
        ((init.uniform,), mx.init.Uniform()),
        ((init.xavier, 3.0), mx.init.Xavier(rnd_type="uniform", factor_type="avg", magnitude=3)),
        ((init.xavier, 2.24), mx.init.Xavier(rnd_type="uniform", factor_type="avg", magnitude=2.24)),
        ((init.xavier,), mx.init.Xavier()),
    ],
)
@pytest.mark.parametrize("shape", [(10, 784), (1, 1), (20, 1, 5, 5), (50, 20, 5, 5), (6, 4, 2, 3)])
def test_the_same_seed_gives_gluons_weights(ours, gluon, shape):
    draw, *number = ours
    theirs = nd.zeros(shape)
    mx.random.seed(1)
    gluon(mx.init.InitDesc("weight"), theirs)
    np.testing.assert_allclose(draw_seeded(draw, shape, *number).asnumpy(), theirs.asnumpy(), rtol=1e-6)


@pytest.mark.parametrize("sigma", [0.01, 1, 3])
def test_normal_has_mean_0_and_deviation_sigma(sigma, dtype, device):
    w = draw_seeded(init.normal, MANY, sigma, ctx=device, dtype=dtype).asnumpy()
    assert (w.shape, w.dtype) == (MANY, dtype)
    assert abs(w.mean()) < 0.01 * sigma
    assert w.std() == pytest.approx(sigma, rel=0.01)
    assert np.abs(w).max() > 3 * sigma
    assert (np.abs(w) < sigma).mean() == pytest.approx(0.6827, abs=0.005)


@pytest.mark.parametrize("scale", [0.01, 1, 3])
def test_uniform_fills_its_range_evenly(scale, dtype, device):
    w = draw_seeded(init.uniform, MANY, scale, ctx=device, dtype=dtype).asnumpy()
    assert (w.shape, w.dtype) == (MANY, dtype)
    assert 0.999 * scale < w.max() <= scale
    assert -scale <= w.min() < -0.999 * scale
    assert abs(w.mean()) < 0.01 * scale
    assert w.std() == pytest.approx(scale / math.sqrt(3), rel=0.01)


@pytest.mark.parametrize(
    "shape, fan_in, fan_out",
    [
        ((400, 500), 500, 400),
        ((10, 784), 784, 10),
        ((50, 20, 5, 5), 20 * 5 * 5, 50 * 5 * 5),
        ((100, 10, 3, 7), 10 * 3 * 7, 100 * 3 * 7),
    ],
)
@pytest.mark.parametrize("magnitude", [3, 2.24, 1])
def test_xaviers_bound_depends_on_fan_in_and_fan_out(shape, fan_in, fan_out, magnitude, device):
    w = draw_seeded(init.xavier, shape, magnitude, ctx=device).asnumpy()
    bound = math.sqrt(magnitude / ((fan_in + fan_out) / 2))
    assert 0.998 * bound < np.abs(w).max() <= bound
    assert w.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("draw", [init.normal, init.uniform, init.xavier])
def test_the_seed_decides(draw):
    first, again = draw_seeded(draw, (5, 5)).asnumpy(), draw_seeded(draw, (5, 5)).asnumpy()
    np.testing.assert_array_equal(first, again)
    assert (draw((5, 5)).asnumpy() != first).any()
