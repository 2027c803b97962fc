"""The same training on several devices of one machine: the mathematics of one, within float32 rounding."""

import os

import numpy as np
import pytest
from commands import command, refused
from runs import RULES, SMALL, begun, digits

from tinymnist.backend import mx, nd
from tinymnist.batches import Batches
from tinymnist.runtime import devices

GPUS = mx.context.num_gpus()
# The gradients of two halves are summed in another order than those of the whole: the last bit of a float32 may differ,
# which is 2.4e-7 of softmax regression's largest weight, 4.1, and the most that was seen. A share left out is 1e-2.
CLOSE = 1e-6


@pytest.mark.parametrize(
    "names, found",
    [
        ("cpu", [mx.cpu(0)]),
        ("cpu:1", [mx.cpu(1)]),
        ("cpu:0,cpu:1", [mx.cpu(0), mx.cpu(1)]),
        (" cpu:2, cpu ", [mx.cpu(2), mx.cpu(0)]),
        ("auto", [mx.gpu(i) for i in range(GPUS)] or [mx.cpu(0)]),
    ],
)
def test_devices_have_names(names, found):
    assert devices.named(names) == found


@pytest.mark.parametrize(
    "names, why",
    [
        (f"gpu:{GPUS}", f"MXNet sees {GPUS} GPUs here"),
        ("cpu,cpu:0", "named twice"),
        ("tpu", "no device 'tpu'"),
        ("cpu:", "no device 'cpu:'"),
        ("cpu:-1", "no device"),
        ("", "no device ''"),
        ("cpu,", "no device ''"),
        ("auto,cpu", "no device 'auto'"),
    ],
)
def test_what_is_no_device_is_one_sentence(names, why):
    with pytest.raises(ValueError, match=why) as caught:
        devices.named(names)
    assert "\n" not in str(caught.value)


def test_the_command_line_says_it_in_one_sentence(capsys):
    status = command("train")("--data", "digits", "--device", f"cpu,gpu:{GPUS}")
    assert refused(capsys, status, f"gpu({GPUS})", f"MXNet sees {GPUS} GPUs here")


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_exchange_gives_each_device_the_sum(count):
    exchange = devices.Exchange([mx.cpu(i) for i in range(count)])
    for _ in range(3):  # again and again, in the same arrays, as a training does
        vectors = [nd.arange(5, ctx=mx.cpu(i)) + i for i in range(count)]
        exchange.sum(vectors)
        for i, vector in enumerate(vectors):
            assert vector.context == mx.cpu(i)
            assert vector.asnumpy().tolist() == [count * n + sum(range(count)) for n in range(5)]


@pytest.mark.parametrize("n, size, shares", [(10, 4, 2), (10, 4, 3), (7, 7, 7), (5, 2, 4), (1, 3, 2), (9, 100, 5)])
@pytest.mark.parametrize("start", [0, 1])
def test_shares_of_an_epoch_are_the_epoch(n, size, shares, start):
    """No example twice, none missing, in batches as one device has them, whatever the remainders"""
    images, labels = np.arange(n, dtype=np.uint8).reshape(n, 1, 1), np.arange(n, dtype=np.uint8)
    order = np.random.default_rng(0).permutation(n)
    parts = []
    for share in range(shares):
        batches = Batches((images, labels), size, mx.cpu(), share=share, shares=shares).epoch(order, start)
        parts.append([batch and batch[1].asnumpy().tolist() for batch in batches])
    batches = [[label for part in batch if part for label in part] for batch in zip(*parts)]
    assert batches == [order[i : i + size].tolist() for i in range(start * size, n, size)]
    assert all(len(part) <= -(-size // shares) for batch in zip(*parts) for part in batch if part)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", SMALL)
def test_two_devices_are_one(model, rule):
    """201 images in batches of 50: of the last batch, of one image, the first device has none"""
    arguments = {**SMALL[model], "rate": 0.0} if model == "dropout-cnn" else None
    one, two = (trained(model, rule, arguments, device) for device in ("cpu", "cpu:0,cpu:1"))
    same(one, two)


def test_three_devices_are_one():
    same(*(trained("mlp", "momentum", None, device) for device in ("cpu:1", "cpu:0,cpu:1,cpu:2")))


def trained(model, rule, arguments, device):
    settings = {"epochs": 1, "batch_size": 50, "device": device}
    return begun(digits(201, 50), model, rule, arguments=arguments, **settings).train()


def same(one, other):
    for replica in other.replicas:
        np.testing.assert_allclose(replica.model.weights.asnumpy(), one.model.weights.asnumpy(), rtol=0, atol=CLOSE)
    a, b = one.history[-1], other.history[-1]
    np.testing.assert_allclose([b.loss, b.test_loss], [a.loss, a.test_loss], rtol=CLOSE)
    assert (b.train_accuracy, b.test_accuracy) == (a.train_accuracy, a.test_accuracy)
    assert [seen[0] for seen in other.seen] == [seen[0] for seen in one.seen]


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TINYMNIST_DATA"), reason="needs MNIST: $TINYMNIST_DATA says where it is")
def test_the_published_two_devices(capsys, tmp_path):
    """The recipe as published: two CPU contexts, ten epochs, test accuracy above 0.94"""
    assert command("train")("--recipe", "mlp-xavier", "--save", tmp_path / "run", "--quiet") == 0
    assert float(capsys.readouterr().out.split("test accuracy ")[1].split()[0]) > 0.94
