"""Imports MXNet, in this one place, and helps it with newer numpys and processors. A student can skip this file."""

import os
import sys
from pathlib import Path
from unittest import mock

import numpy.fft  # loads numpy's OpenBLAS, before the settings below, which are for MXNet's
import numpy.random

__all__ = ["autograd", "mx", "nd"]
settings = {}
cpu = Path("/proc/cpuinfo")
find_name = numpy.__getattr__
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    settings["GOMP_SPINCOUNT"] = "1000"  # a thread that waits soon leaves its core to other processes
if "OPENBLAS_CORETYPE" not in os.environ and cpu.exists() and {"avx2", "fma"} <= set(cpu.read_text().split()):
    settings["OPENBLAS_CORETYPE"] = "Haswell"  # MXNet's OpenBLAS does not recognize newer processors


def find_removed_name(name):
    """An answer for names that numpy has removed. MXNet mentions them while it is imported, but uses only `bool`."""
    if sys._getframe(1).f_globals.get("__name__", "").startswith("mxnet."):
        return bool if name == "bool" else None
    return find_name(name)


sys.modules.setdefault("scipy", None)  # MXNet would import it, which takes half a second, for nothing that is used
try:
    with mock.patch.dict(os.environ, settings), mock.patch.object(numpy, "__getattr__", find_removed_name):
        import mxnet as mx
        from mxnet import autograd, nd
except (ImportError, OSError, RuntimeError) as error:
    advice = "type: pip install requests setuptools && pip install --no-deps mxnet==1.9.1"
    if "libarmpl" in str(error):
        advice = "read docs/AARCH64.md"
    elif "libgomp" in str(error) or "libquadmath" in str(error):
        advice = "type: apt-get install libgomp1 libquadmath0"
    raise ImportError(f"MXNet cannot be imported ({' '.join(str(error).split())}); {advice}") from None
finally:
    if sys.modules["scipy"] is None:
        del sys.modules["scipy"]
