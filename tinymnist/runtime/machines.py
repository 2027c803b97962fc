"""One training in many processes, on one machine or many, by MXNet's parameter server ("dist_sync").

A scheduler connects workers, which train, with servers, which sum what the workers send. If one process dies, MXNet
lets all others wait forever. So each process watches the others, and ends with an error message instead.
"""

import atexit
import ctypes
import os
import signal
import socket
import sys
import threading
import time

from tinymnist.backend import mx

SHORTEST = 10  # seconds: a shorter timeout is not possible, as heartbeats come only once a second
ADDRESS = ("DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT", "DMLC_NUM_SERVER", "DMLC_NUM_WORKER")
GROUPS = {1: "the scheduler", 2: "a server", 4: "a worker"}  # numbers in ps-lite, MXNet's network library
CONNECTION = "the connection of all processes"
JOINED = []  # at most one Member, as MXNet can join a process only once


class Member:
    """This process as the scheduler, a server or a worker: its store, and a thread that watches the other processes.

    MXNet cannot be interrupted, so the thread ends this process, with an error message and status 1, in two cases:
    what `expect` names takes more than `timeout` seconds (every exchange calls it), or heartbeats stop. The
    scheduler receives those of all processes, and all processes receive the scheduler's.
    """

    def __init__(self, role, timeout):
        set_environment(role)
        self.name = f"{role} (process {os.getpid()} on {os.uname().nodename})"
        self.timeout, self.silence = timeout, longest_silence(timeout)
        self.store, self.connected, self.keys, self.lock = None, None, set(), threading.Lock()
        self.expect(CONNECTION)
        threading.Thread(target=self.watch, daemon=True).start()
        self.store = mx.kv.create("dist_sync")

    def expect(self, what):
        """From now on, this process waits for `what`; None: for nothing."""
        self.since, self.what = time.monotonic(), what

    def watch(self):
        while True:
            time.sleep(0.5)
            with self.lock:
                problem = self.find_problem()
                if problem:
                    print(f"{self.name}: {problem}. This process ends; continue with --resume", file=sys.stderr)
                    leave(1)

    def find_problem(self):
        """A sentence, or None. Also sets `connected`, the time at which all were connected."""
        now = time.monotonic()
        if self.what and now - self.since > self.timeout:
            return f"{self.what} took more than {self.timeout:g} seconds; another process may be dead"
        # Until all are connected, MXNet calls no process silent. Then all of them are, for more than −1 seconds.
        if self.store and not self.connected and self.is_silent(sum(GROUPS), -1):
            self.connected = now
            if self.what == CONNECTION:
                self.expect(None)
        if not self.store or not self.connected or now < self.connected + self.silence + 1:  # too early to judge
            return None
        silent = [name for group, name in GROUPS.items() if self.is_silent(group, self.silence)]
        sentence = f"no sign of life from {' and '.join(silent)} for more than {self.silence} seconds"
        return sentence if silent else None

    def is_silent(self, group, seconds):
        """Whether a process of the group sent no heartbeat for so many seconds."""
        number = ctypes.c_int()  # MXNet's Python interface lacks this function
        mx.base._LIB.MXKVStoreGetNumDeadNode(self.store.handle, group, ctypes.byref(number), seconds)
        return number.value > 0

    def close(self):
        """Wait for all workers; then servers and scheduler can end."""
        self.expect("the end of the other workers")
        with self.lock:
            store, self.store = self.store, None
        del store  # MXNet waits in its destructor


def longest_silence(timeout):
    """Seconds without a heartbeat after which a process counts as dead, as a C int.

    (timeout − 5) / 2, as it passes twice: until the scheduler notices a death and ends; until the others notice that.
    """
    return int(min(timeout, 3e7) - 5) // 2  # 5 seconds are spare


def join(timeout):
    """This process as a worker; the first timeout counts. Raises ValueError without the scheduler's address."""
    if not JOINED:
        JOINED.append(Member("worker", timeout))
        atexit.register(JOINED[0].close)
    return JOINED[0]


def serve(role, timeout):
    """Be the scheduler or a server until all workers have finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the workers: they save, and then all processes end
    mx.kvstore.kvstore_server.KVStoreServer(Member(role, timeout).store).run()
    leave(0)


def set_environment(role):
    """Set what MXNet reads from the environment. Raises ValueError if the scheduler's address is missing or wrong."""
    missing = [name for name in ADDRESS if not os.environ.get(name)]
    if missing:
        raise ValueError(f"dist_sync needs {', '.join(missing)} in the environment; scripts/launch.py sets them")
    for name in ADDRESS[1:]:
        if not os.environ[name].isdigit() or int(os.environ[name]) < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {os.environ[name]!r}")
    os.environ.setdefault("PS_HEARTBEAT_INTERVAL", "1")  # seconds
    os.environ.setdefault("MXNET_KVSTORE_BIGARRAY_BOUND", "1000")  # longer vectors are divided among all servers
    os.environ["DMLC_ROLE"] = role
    if role == "scheduler":
        with socket.socket() as test:
            test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as ps-lite does
            try:
                test.bind(("", int(os.environ["DMLC_PS_ROOT_PORT"])))
            except (OSError, OverflowError) as error:
                raise ValueError(f"port {os.environ['DMLC_PS_ROOT_PORT']} cannot be used: {error}") from error


def abort(status):
    """Return `status`, for a script to exit with. A worker exits here at once, or it would wait for the others."""
    if JOINED:
        leave(status)
    return status


def leave(status):
    """End this process without MXNet's cleanup, which would wait for all other processes."""
    sys.stdout.flush()
    os._exit(status)
