"""Training on several devices of one machine gives the result of one device, within float32 rounding."""

import ctypes
import os
import subprocess
import sys
from threading import get_native_id
from unittest.mock import Mock

import pytest
from commands import command
from runs import RULES, SMALL, check_close, digits, make_run

import tinymnist as tm
from tinymnist.backend import mx, nd
from tinymnist.runtime import devices
from tinymnist.runtime.devices import Exchange, describe_threads, find_devices

GPUS = mx.context.num_gpus()
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
# Two halves are summed in another order than the whole batch, so that the last bits may differ: by 4e-7 for the
# largest weights. If a share were missing, the difference would be 1e-2.
CLOSE = 1e-6


def test_devices_have_names():
    assert find_devices("cpu") == [mx.cpu(0)]
    assert find_devices("cpu:1") == [mx.cpu(1)]
    assert find_devices(" cpu:2, cpu ") == [mx.cpu(2), mx.cpu(0)]
    assert find_devices("auto") == ([mx.gpu(i) for i in range(GPUS)] or [mx.cpu(0)])


def test_a_wrong_device_is_one_sentence():
    for names, wrong in [("tpu", "tpu"), ("cpu:", "cpu:"), ("cpu:-1", "cpu:-1"), ("cpu,", ""), ("auto,cpu", "auto")]:
        with pytest.raises(ValueError, match=f"^there is no device '{wrong}'; name cpu, gpu, gpu:1, .* or auto$"):
            find_devices(names)
    with pytest.raises(ValueError, match=f"^gpu.{GPUS}. is not there: MXNet sees {GPUS} GPUs here.*$"):
        find_devices(f"cpu,gpu:{GPUS}")
    with pytest.raises(ValueError, match=r"^cpu.0. is named twice in 'cpu,cpu:0'$"):
        find_devices("cpu,cpu:0")


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_an_exchange_gives_each_device_the_sum(count):
    exchange = Exchange([mx.cpu(i) for i in range(count)])
    assert (exchange.store is None) == (count == 1)  # nothing is copied for one device
    for _ in range(3):
        vectors = [nd.arange(5, ctx=mx.cpu(i)) + i for i in range(count)]
        exchange.sum(vectors)
        for i, vector in enumerate(vectors):
            assert vector.context == mx.cpu(i)
            assert vector.asnumpy().tolist() == [count * n + sum(range(count)) for n in range(5)]


def test_devices_do_not_wait_for_each_other_forever(tmp_path):
    """OpenBLAS hangs if two threads of MXNet multiply large matrices with several threads each."""
    code = """
from tinymnist.backend import mx, nd
from tinymnist.runtime.devices import Exchange
devices = [mx.cpu(0), mx.cpu(1)]
Exchange(devices)
matrices = [nd.ones((256, 512), ctx=device) for device in devices]
for _ in range(200):
    products = [nd.dot(x, x, transpose_b=True) for x in matrices]
print(*[int(product.sum().asscalar()) for product in products])
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    out = subprocess.check_output([sys.executable, "-c", code], env=environment, cwd=tmp_path, text=True, timeout=100)
    assert out == f"{2**25} {2**25}\n"


def test_a_single_worker_is_not_watched_after_the_training():
    exchange = Exchange([mx.cpu()])
    exchange.member = Mock()
    exchange.finish()
    exchange.member.expect.assert_called_with(None)


def test_only_several_cpus_are_limited_to_one_thread_each(monkeypatch):
    callers = []
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: callers.append(get_native_id()))
    monkeypatch.setattr(devices, "use_one_thread", function)
    for contexts, count in [([mx.cpu()], 0), ([mx.cpu(0), mx.cpu(1)], 2)]:
        Exchange(contexts)
        nd.waitall()
        assert len(set(callers)) == count


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize("names", ["cpu:0,cpu:1", "cpu:1,cpu:0,cpu:2"])
def test_several_devices_are_like_one(names, model, rule):
    """201 images in batches of 50: the last batch has one image, so some devices have none."""
    arguments = {**SMALL[model], "rate": 0.0} if "cnn" in model else SMALL[model]
    settings = {"arguments": arguments, "epochs": 1, "batch_size": 50, "log_interval": 1}
    one, several = (make_run(digits(201, 50), model, rule, device=name, **settings) for name in ("cpu", names))
    check_close(several.train(), one.train(), CLOSE)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TINYMNIST_DATA"), reason="needs MNIST: $TINYMNIST_DATA says where it is")
def test_the_published_experiment_with_two_devices(capsys, tmp_path):
    assert command("train")("--recipe", "mlp-xavier", "--save", tmp_path / "run", "--quiet") == 0
    assert float(capsys.readouterr().out.split("test accuracy ")[1].split()[0]) > 0.94


@pytest.mark.parametrize("variable, threads", [(None, max(1, CORES // 2)), (str(CORES), CORES), ("1", 1)])
def test_the_header_names_the_cores_and_when_more_would_help(variable, threads, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    used = f"MXNet uses {threads} of {CORES} cores"
    assert describe_threads(tm.mlp(), [mx.cpu()]) == f"{used}; more help little without convolutions"
    faster = "--device cpu:0,cpu:1" if CORES < 4 else f"OMP_NUM_THREADS={CORES}"
    advice = "" if threads == CORES else f"; {faster} is faster on an idle machine"
    assert describe_threads(tm.lenet(), [mx.cpu()]) == used + advice
    several = [mx.cpu(i) for i in range(CORES + 1)]
    assert describe_threads(tm.lenet(), several) == f"MXNet uses {CORES} of {CORES} cores for {CORES + 1} devices"
