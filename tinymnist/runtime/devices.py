"""Devices by name, the CPU's threads, and sums over all devices, on one machine or many, by MXNet's KVStore."""

import ctypes
import hashlib
import os
import re
import sys

import numpy as np

from tinymnist.backend import mx, nd
from tinymnist.layers import Conv2D
from tinymnist.runtime import machines


def find_devices(names):
    """A list of MXNet contexts for "cpu", "gpu", "gpu:1", "cpu:0,cpu:1", or "auto": all GPUs, or the CPU without one.

    Raises ValueError for an unknown name, a device that is named twice, or a GPU that does not exist.
    """
    gpus = mx.context.num_gpus()
    if names == "auto":
        return [mx.gpu(i) for i in range(gpus)] or [mx.cpu()]
    devices = []
    for name in map(str.strip, str(names).split(",")):
        match = re.fullmatch(r"(cpu|gpu)(?::(\d{1,3}))?", name)
        if not match:
            raise ValueError(f"there is no device {name!r}; name cpu, gpu, gpu:1, a list such as cpu:0,cpu:1, or auto")
        device = mx.Context(match[1], int(match[2] or 0))
        if match[1] == "gpu" and device.device_id >= gpus:
            raise ValueError(f"{device} is not there: MXNet sees {gpus} GPUs here; --device cpu works everywhere")
        if device in devices:
            raise ValueError(f"{device} is named twice in {names!r}")
        devices.append(device)
    return devices


def describe_threads(model, devices):
    """How many cores MXNet uses on the CPU, and whether more would help."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cpus = len(find_cpus(devices))
    if cpus > 1:
        return f"MXNet uses {min(cpus, cores)} of {cores} cores for {cpus} devices"
    threads = os.environ.get("OMP_NUM_THREADS") or max(1, cores // 2)  # half: MXNet's default
    if not any(isinstance(layer, Conv2D) for layer in model.layers):
        advice = "; more help little without convolutions"
    else:
        faster = "--device cpu:0,cpu:1" if cores < 4 else f"OMP_NUM_THREADS={cores}"
        advice = f"; {faster} is faster on an idle machine" if str(threads) != str(cores) else ""
    return f"MXNet uses {threads} of {cores} cores{advice}"


def find_cpus(devices):
    return [device for device in devices if device.device_type == "cpu"]


@ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
def use_one_thread(_context, _argument):
    """From now on, OpenBLAS computes the products of the calling thread without other threads."""
    ctypes.CDLL("libgomp.so.1").omp_set_num_threads(1)


def limit_threads(devices):
    """If there are several CPU devices, let each compute its products with one thread, until the process ends.

    MXNet has a thread for each device. If two of them start other threads at the same time, OpenBLAS may wait forever.
    """
    cpus = find_cpus(devices)
    if len(cpus) < 2 or sys.platform != "linux":
        return
    for device in cpus:
        where = (ctypes.c_int * 2)(device.device_typeid, device.device_id)  # MXNet's Context, in C
        # MXNet calls use_one_thread in the device's thread. The other arguments are empty: an argument for the function
        # and its destructor, arrays to read and to change and how many, kind of operation, priority, name.
        arguments = use_one_thread, None, None, where, None, 0, None, 0, None, 0, None
        mx.base.check_call(mx.base._LIB.MXEnginePushSync(*arguments))


class Exchange:
    """Sums vectors over the devices of this process and, with "dist_sync", over all workers."""

    def __init__(self, devices, kvstore="local", timeout=60):
        limit_threads(devices)
        self.devices, self.rank, self.workers = devices, 0, 1
        self.member, self.store, self.keys = None, None, set()  # of machines.py; MXNet's KVStore; the keys it knows
        if kvstore == "dist_sync":
            self.member = machines.join(timeout)
            self.store, self.keys = self.member.store, self.member.keys
            self.rank, self.workers = self.store.rank, self.store.num_workers
        elif len(devices) > 1:
            self.store = mx.kv.create("device" if devices[0].device_type == "gpu" else "local")

    def shares(self):
        """(i, n) for each device: it has part i of n of every batch, as Step's share."""
        shares = len(self.devices) * self.workers
        return [(self.rank * len(self.devices) + i, shares) for i in range(len(self.devices))]

    def sum(self, vectors, name="gradients"):
        """Replace each of `vectors`, one on each device, by their sum over all devices and workers.

        Two uses with vectors of one size and type need two names, or MXNet may mix them up.
        """
        if self.store is None:  # one device on one machine
            return
        if self.member:
            self.member.expect("an exchange or the work after it")
        key = f"{name}: {vectors[0].size} {np.dtype(vectors[0].dtype)}"
        if key not in self.keys:
            self.store.init(key, vectors[0])
            self.keys.add(key)
        self.store.pushpull(key, vectors, out=vectors)

    def total(self, numbers):
        """The sum of an array of numbers over all workers. MXNet's servers sum it as float32."""
        if self.workers == 1:
            return numbers
        vector = nd.array(numbers.reshape(-1), dtype="float32")
        self.sum([vector], "numbers")
        return vector.asnumpy().astype(numbers.dtype).reshape(numbers.shape)

    def synchronize_start(self, description, vectors):
        """Start all workers with the vectors of worker 0. `vectors` yields, for each vector, its copies on all devices.

        Raises ValueError if the description of this worker's task differs from worker 0's.
        """
        if self.workers == 1:
            return
        # Summing broadcasts: worker 0 sends its values, all others zeros.
        own = np.frombuffer(hashlib.sha256(description.encode()).digest(), np.uint8).astype("float32")
        if (self.total(own if self.rank == 0 else np.zeros_like(own)) != own).any():
            raise ValueError(f"worker {self.rank} must have the same options, data and checkpoint as worker 0")
        for number, copies in enumerate(vectors):
            for vector in copies if self.rank > 0 else copies[1:]:
                vector[:] = 0
            self.sum(copies, f"start {number}")

    def finish(self):
        """Wait until all workers have finished. After that, everything that worker 0 saved is on disk."""
        if self.member:
            self.total(np.zeros(1))
            self.member.expect(None)
