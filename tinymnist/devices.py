"""Naming devices, and summing vectors over several of them through MXNet's KVStore."""

from __future__ import annotations

import re

from tinymnist.backend import mx


def named(names):
    """ "cpu", "gpu", "gpu:1", "cpu:0,cpu:1", or "auto": all GPUs, the CPU where there is none.   -> [mx.Context, …]

    ValueError: another name, a device twice, or a GPU that is not there.
    """
    gpus = mx.context.num_gpus()
    if names == "auto":
        return [mx.gpu(i) for i in range(gpus)] or [mx.cpu()]
    devices = []
    for name in str(names).split(","):
        match = re.fullmatch(r"(cpu|gpu)(?::(\d{1,3}))?", name.strip())
        if not match:
            raise ValueError(
                f"there is no device {name.strip()!r}; name cpu, gpu, gpu:1, a list such as cpu:0,cpu:1, or auto"
            )
        device = mx.Context(match[1], int(match[2] or 0))
        if match[1] == "gpu" and device.device_id >= gpus:
            raise ValueError(f"{device} is not there: MXNet sees {gpus} GPUs here; --device cpu works everywhere")
        if device in devices:
            raise ValueError(f"{device} is named twice in {names!r}")
        devices.append(device)
    return devices


class Exchange:
    """Sums vectors over the devices of this process, each getting the sum. With one device there is nothing to do."""

    def __init__(self, devices):
        self.devices, self.rank, self.workers = devices, 0, 1
        self.store = (
            mx.kv.create("device" if devices[0].device_type == "gpu" else "local") if len(devices) > 1 else None
        )
        self.ready = False

    def sum(self, vectors):
        """Replaces every one of `vectors`, one on each device, by their sum."""
        if self.store is None:
            return
        if not self.ready:
            self.store.init("gradients", vectors[0])
            self.ready = True
        self.store.push("gradients", vectors)
        self.store.pull("gradients", out=vectors)
