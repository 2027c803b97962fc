"""tinymnist/backend.py: what it changes for MXNet, what it leaves alone, and what it says when MXNet is broken."""

import os
import re
from pathlib import Path

import pytest
from commands import ROOT, finish, start

SETTINGS = ("OPENBLAS_CORETYPE", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "MXNET_USE_OPERATOR_TUNING")


def run(code, path="", **settings):
    """(stdout, stderr) of a new Python process with these environment variables, and with `path` on its module path."""
    others = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environment = {**others, **settings, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}
    return finish(start(python=["-c", code], env=environment))[1:]


def loaded_settings(code, **settings):
    """What the libraries of a new process chose: OpenBLAS its kernels, libgomp GOMP_SPINCOUNT and OMP_WAIT_POLICY."""
    _, text = run(code, OPENBLAS_VERBOSE="2", OMP_DISPLAY_ENV="VERBOSE", **settings)
    found = zip(*(re.findall(rf"{name} = '(\w+)'", text) for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")))
    return re.findall(r"Core: (\w+)", text), {*found}


def test_the_import_leaves_numpy_and_the_environment_as_they_were(tmp_path):
    (tmp_path / "scipy").mkdir()  # MXNet must not load it: that takes time, and numpy is changed at that moment
    (tmp_path / "scipy" / "__init__.py").touch()
    (tmp_path / "scipy" / "stats.py").write_text("import numpy\nprint(hasattr(numpy, 'NoSuchName'))")
    code = """
import os, numpy
before = numpy.__getattr__, numpy.__dict__.get("bool"), {**os.environ}
import tinymnist
print((numpy.__getattr__, numpy.__dict__.get("bool"), {**os.environ}) == before, hasattr(numpy, "NoSuchName"))
import matplotlib.figure, numpy.ma
matplotlib.figure.Figure().subplots().plot(numpy.ma.masked_less([1, 2, 3], 2))
print(numpy.random.RandomState(0).randint(2), numpy.fft.fft([1]).real)
import scipy.stats
"""
    assert run(code, tmp_path) == ("True False\n0 [1.]\nFalse\n", "")


def test_mxnet_uses_the_fast_kernels_and_numpy_chooses_its_own():
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    if not {"avx2", "fma"} <= {*flags}:
        pytest.skip("this processor has no AVX2")
    own, _ = loaded_settings("import numpy")
    kernels, waiting = loaded_settings("import tinymnist")
    assert kernels[: len(own) + 1] == [*own, "Haswell"] and waiting == {("1000", "ACTIVE")}


def test_the_settings_of_the_user_stay():
    kernels, waiting = loaded_settings("import tinymnist", OPENBLAS_CORETYPE="Nehalem", GOMP_SPINCOUNT="77")
    assert {*kernels} == {"Nehalem"} and waiting == {("77", "PASSIVE")}  # PASSIVE is what libgomp says by default
    assert loaded_settings("import tinymnist", OMP_WAIT_POLICY="passive")[1] == {("0", "PASSIVE")}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not list the threads of a process")
def test_two_cores_share_elementwise_work_unless_the_user_lets_mxnet_decide():
    code = """
import os
os.sched_setaffinity(0, [*os.sched_getaffinity(0)][:2])
from tinymnist.backend import nd
def read_ticks():  # of processor time, by thread
    threads = os.listdir("/proc/self/task")
    return {t: int(open(f"/proc/self/task/{t}/stat").read().rpartition(")")[2].split()[11]) for t in threads}
x, before = nd.ones(4_000_000), read_ticks()
for _ in range(20):
    nd.exp(x).wait_to_read()
*_, second, first = sorted(ticks - before.get(t, 0) for t, ticks in read_ticks().items())
print(second > first / 3)
"""
    assert run(code, OMP_NUM_THREADS="2")[0] == "True\n"
    assert run(code, OMP_NUM_THREADS="2", MXNET_USE_OPERATOR_TUNING="1")[0] == "False\n"


ABSENT = "cannot open shared object file: No such file or directory"
INSTALL = "type: pip install requests setuptools && pip install --no-deps mxnet==1.9.1"


@pytest.mark.parametrize(
    "error, reason, advice",
    [
        ("ModuleNotFoundError", "No module named 'mxnet'", INSTALL),
        ("RuntimeError", "Cannot find the MXNet library.\nList of candidates:\nlibmxnet.so", INSTALL),
        ("OSError", f"libarmpl_lp64_mp.so: {ABSENT}", "read docs/AARCH64.md"),
        ("OSError", f"libquadmath.so.0: {ABSENT}", "type: apt-get install libgomp1 libquadmath0"),
    ],
)
def test_a_missing_or_broken_mxnet_is_one_sentence(tmp_path, error, reason, advice):
    (tmp_path / "mxnet.py").write_text(f"raise {error}({reason!r})")
    code = """
import os, numpy
before = numpy.__getattr__, {**os.environ}
try:
    import tinymnist
finally:
    print((numpy.__getattr__, {**os.environ}) == before)
"""
    out, err = run(code, tmp_path)
    sentence = f"ImportError: MXNet cannot be imported ({' '.join(reason.split())}); {advice}"
    assert (out, err.splitlines()[-1], err.count("Error: ")) == ("True\n", sentence, 1)
