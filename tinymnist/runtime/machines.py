"""One training in many processes, on one machine or on many: MXNet's parameter server, and a watch over it.

A scheduler brings together workers, which train, and servers, which sum what they send; MXNet calls it dist_sync. It
would wait for ever where one of them is gone. So each process watches, and ends with a sentence instead.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import time

from tinymnist.backend import mx

SHORTEST = 10  # seconds, as a timeout: heartbeats come every second, and a silence is reported only once
HEARTBEAT = {"PS_HEARTBEAT_INTERVAL": "1"}
# One vector is one key, and a key lies on one server unless it is "big": ours are shared out over all servers.
SHARED_OUT = {"MXNET_KVSTORE_BIGARRAY_BOUND": "1000"}
ADDRESS = ("DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT", "DMLC_NUM_WORKER", "DMLC_NUM_SERVER")
SCHEDULER, SERVER, WORKER = 1, 8, 9  # ps-lite's numbers of processes: servers 8, 10, …; workers 9, 11, …
JOINED = []  # at most one Machines: MXNet joins a process once


class Watch:
    """Ends this process, with a sentence and status 1, when for `timeout` seconds nothing shows that all goes on.

    Two things show it: `expect`, called at every exchange, and ps-lite's heartbeats, which the scheduler has from all
    others and they from it. A thread looks, since neither MXNet's engine nor its server can be interrupted.
    """

    def __init__(self, who, timeout):
        self.who, self.timeout, self.store, self.what, self.joined = who, timeout, None, None, None
        # The scheduler notices a silence, and the others that it has ended: twice as long, and what rounding adds.
        # MXNet takes it as a C int, which a year is and 1e10 is not.
        self.silence = int(min(timeout, 3e7) - 5) // 2
        self.lock = threading.Lock()
        threading.Thread(target=self.look, daemon=True).start()

    def expect(self, what):
        """`what` is to be over within the time-out, by the next call; None where there is nothing to wait for."""
        self.what, self.since = what, time.monotonic()

    def silent(self, process, seconds):
        """Of a process (or a group) whether it has been silent for so long; of -1 seconds, whether all have joined."""
        number = ctypes.c_int()  # MXNet's Python passes on all of the store's functions but this one
        mx.base._LIB.MXKVStoreGetNumDeadNode(self.store.handle, process, ctypes.byref(number), seconds)
        return number.value > 0

    def look(self):
        while True:
            time.sleep(0.5)
            with self.lock:
                self.look_once()

    def look_once(self):
        if self.what and time.monotonic() - self.since > self.timeout:
            self.end(f"{self.what} took more than {self.timeout:g} seconds; another process may be gone or stuck")
        if self.store is None:
            return
        if self.joined is None:
            if self.silent(1 + 2 + 4, -1):
                self.joined = time.monotonic()
                if self.what == COMING:
                    self.expect(None)
            return
        if time.monotonic() - self.joined < self.silence + 1:  # ps-lite may not have set its own clock yet
            return
        names = {SCHEDULER: "the scheduler"}
        names.update({SERVER + 2 * i: f"server {i}" for i in range(int(os.environ["DMLC_NUM_SERVER"]))})
        names.update({WORKER + 2 * i: f"worker {i}" for i in range(int(os.environ["DMLC_NUM_WORKER"]))})
        gone = [name for process, name in names.items() if self.silent(process, self.silence)]
        if gone:
            self.end(f"nothing was heard of {', '.join(gone)} for more than {self.silence} seconds")

    def end(self, why):
        print(f"{self.who}: {why}. This process ends; go on from the last checkpoint with --resume", file=sys.stderr)
        leave(1)


COMING = "the coming together of all processes"


class Machines:
    """This worker's place among the workers: rank, workers, and the store through which they exchange."""

    def __init__(self, timeout):
        require("worker")
        self.watch = Watch(f"a worker (process {os.getpid()} on {os.uname().nodename})", timeout)
        self.watch.expect(COMING)
        self.store = mx.kv.create("dist_sync")
        self.rank, self.workers, self.exchanges = self.store.rank, self.store.num_workers, 0
        self.watch.who, self.watch.store = f"worker {self.rank}", self.store
        self.watch.expect(None)
        atexit.register(self.close)

    def close(self):
        """Waits for all workers, and lets servers and scheduler end."""
        self.watch.expect("the end of the other workers")
        with self.watch.lock:
            self.watch.store = None
        self.store = None  # MXNet waits in its destructor
        self.watch.expect(None)


def join(timeout):
    """The Machines that this process belongs to.   ValueError: the environment does not say which"""
    if not JOINED:
        JOINED.append(Machines(timeout))
    return JOINED[0]


def serve(role, timeout):
    """Is the scheduler or a server until all workers are done."""
    require(role)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the workers: they save, and then all end
    watch = Watch(role if role == "scheduler" else f"a server (process {os.getpid()})", timeout)
    watch.expect(COMING)
    watch.store = mx.kv.create("dist_sync")
    mx.kvstore.kvstore_server.KVStoreServer(watch.store).run()
    leave(0)


def require(role):
    """Looks at the environment, and sets what MXNet reads from it.   ValueError: something is missing"""
    missing = [name for name in ADDRESS if not os.environ.get(name)]
    if missing:
        raise ValueError(f"dist_sync needs {', '.join(missing)} in the environment; scripts/launch.py sets them")
    for name in ADDRESS[1:]:
        if not os.environ[name].isdigit() or int(os.environ[name]) < 1:
            raise ValueError(f"{name} must be a whole number from 1 on, not {os.environ[name]!r}")
    os.environ["DMLC_ROLE"] = role
    for name, value in {**HEARTBEAT, **SHARED_OUT}.items():
        os.environ.setdefault(name, value)


def failed(status):
    """The exit status of a failure; a process that others wait for ends at once, instead of waiting for them."""
    if JOINED:
        leave(status)
    return status


def leave(status):
    """Ends this process without MXNet's farewells, which wait for all others."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
