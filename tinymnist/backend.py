"""Imports MXNet, in this one place, and helps it with newer numpys and processors. A student can skip this file."""

import os
import sys
from pathlib import Path
from unittest import mock

import numpy.fft  # loads numpy's OpenBLAS here, before the settings below, which are for MXNet's
import numpy.random

__all__ = ["autograd", "mx", "nd"]
numpy_getattr = numpy.__getattr__
cpuinfo = Path("/proc/cpuinfo")
waiting = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "1000"}  # a waiting thread checks 1000 times, then sleeps
settings = {} if waiting.keys() & os.environ.keys() else waiting  # if the user sets one of them, neither is set here
settings["MXNET_CPU_TEMP_COPY"] = "1024"  # buffers; with its usual four, two CPU devices often wait for the same one
if cpuinfo.exists() and {"avx2", "fma"} <= set(cpuinfo.read_text().split()):
    settings["OPENBLAS_CORETYPE"] = "Haswell"  # MXNet's OpenBLAS does not recognize newer processors
if cpuinfo.exists() and len(os.sched_getaffinity(0)) < 4:
    settings["MXNET_USE_OPERATOR_TUNING"] = "0"  # it would use threads for matrix products only


def find_removed_name(name):
    """An answer for names that numpy has removed. MXNet mentions them while it is imported, but uses only `bool`."""
    if sys._getframe(1).f_globals.get("__name__", "").startswith("mxnet."):
        return bool if name == "bool" else None
    return numpy_getattr(name)


sys.modules.setdefault("scipy", None)  # MXNet would import it, which takes half a second, for nothing that is used
try:  # the user's own settings come first
    with mock.patch.dict(os.environ, settings | os.environ), mock.patch.object(numpy, "__getattr__", find_removed_name):
        import mxnet as mx
        from mxnet import autograd, nd

        nd.dot(nd.ones((1, 1)), nd.ones((1, 1)))  # MXNet reads the number of buffers at the first product
except (ImportError, OSError, RuntimeError) as error:
    missing = {"libarmpl": "read docs/AARCH64.md", "shared object": "type: apt-get install libgomp1 libquadmath0"}
    advice = [text for name, text in missing.items() if name in str(error)]
    advice += ["type: pip install requests setuptools && pip install --no-deps mxnet==1.9.1"]
    raise ImportError(f"MXNet cannot be imported ({' '.join(str(error).split())}); {advice[0]}") from None
finally:
    if sys.modules["scipy"] is None:
        del sys.modules["scipy"]
