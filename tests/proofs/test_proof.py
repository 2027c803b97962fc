"""`same` and `finite_differences` notice wrong values and wrong gradients."""

import numpy as np
import pytest
from proof import DIFFERENCES, finite_differences, numbers, same

from tinymnist.backend import nd


def square(x):
    return x * x


@pytest.fixture(autouse=True)
def forget_differences():
    yield
    DIFFERENCES.pop(("square", "float32"), None)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x * x + 1e-4,
        lambda x: x * nd.stop_gradient(x),  # the value is right, half of the gradient is missing
        lambda x: x * x + 1e-4 * (x - nd.stop_gradient(x)),
        lambda x: (x * x).reshape((-1, 1)),
        lambda x: (x * x).astype("float64"),
        lambda x: x * x * np.nan,
        lambda x: nd.where(x > 2, nd.stop_gradient(x * x), x * x),  # wrong in a few elements only
    ],
)
def test_same_notices_a_difference(wrong):
    x = numbers("float32", (100,))
    same(square, nd.square, x)
    with pytest.raises(AssertionError):
        same(square, wrong, x)
    wrong.__name__ = "square"
    with pytest.raises(AssertionError):
        same(wrong, square, x)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, y: x * nd.stop_gradient(x) + y,
        lambda x, y: -x + 2 * nd.stop_gradient(x) + y,
        lambda x, y: square(x) + y + 1e-5 * nd.stop_gradient(y),
        lambda x, y: square(x) + nd.stop_gradient(y) + 0 * y,
        lambda x, y: nd.where(x > 2, nd.stop_gradient(x), x) + y,
    ],
)
def test_finite_differences_notice_a_wrong_gradient(wrong):
    x, y = numbers("float64", (100,), (100,))
    assert (x > 2).sum() == 1  # so the last case is wrong in one element of a hundred
    finite_differences(lambda x, y: square(x) + y, x, y)
    with pytest.raises(AssertionError, match="apart"):
        finite_differences(wrong, x, y)
