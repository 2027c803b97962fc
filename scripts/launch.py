"""Starts one training in many processes: python scripts/launch.py --workers 2 -- --model lenet --epochs 3

On this machine it starts a scheduler, servers and workers, and ends all of them where one fails. With --print it says
what to start on which of several machines. What stands behind -- goes to scripts/train.py.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOOPBACK = "127.0.0.1"
SHORTEST = 10  # seconds: that of tinymnist/machines.py, whose import would load MXNet


def parser():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--workers", type=int, metavar="N", help="how many train; default: 2, of --print as many as machines"
    )
    p.add_argument(
        "--servers", type=int, metavar="N", help="how many sum gradients; default: 1, of --print as many as machines"
    )
    p.add_argument(
        "--timeout", type=float, default=60, metavar="S", help="seconds after which the silent are taken for gone"
    )
    p.add_argument("--port", type=int, metavar="P", help="of the scheduler; default: a free one, with --print 9091")
    p.add_argument("--pin", action="store_true", help="give every worker a core of its own, as long as there are cores")
    p.add_argument("--print", nargs="+", metavar="ADDRESS", dest="hosts", help="print the commands for these machines")
    p.add_argument("--script", metavar="FILE", help="what the workers run instead of scripts/train.py")
    p.add_argument("--role", choices=("scheduler", "server"), help="be one: MXNet's DMLC_… variables say of what")
    return p


def check(options):
    """ValueError: something is out of range, or cannot be had here; before anything is started"""
    for name in ("workers", "servers"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be 1 or more, not {getattr(options, name)}")
    if not SHORTEST <= options.timeout < math.inf:
        raise ValueError(f"--timeout must be {SHORTEST} seconds or more, and finite, not {options.timeout}")
    if options.port is not None and not 0 <= options.port <= 65535:
        raise ValueError(f"--port must be from 0 to 65535, not {options.port}")
    if options.pin and not hasattr(os, "sched_setaffinity"):
        raise ValueError(f"--pin needs a system with os.sched_setaffinity, as Linux is, not {sys.platform}")


def environment(host, port, workers, servers, address):
    """What MXNet wants to know: where the scheduler is, how many belong together, where this process can be reached."""
    return {
        "DMLC_PS_ROOT_URI": host,
        "DMLC_PS_ROOT_PORT": str(port),
        "DMLC_NUM_WORKER": str(workers),
        "DMLC_NUM_SERVER": str(servers),
        "DMLC_NODE_HOST": address,
    }


def commands(options, rest):
    """(name, command) of each process: the scheduler, the servers, the workers."""
    python, launch, timeout = sys.executable, str(HERE / "launch.py"), ["--timeout", f"{options.timeout:g}"]
    yield "scheduler", [python, launch, "--role", "scheduler", *timeout]
    for i in range(options.servers):
        yield f"server process {i}", [python, launch, "--role", "server", *timeout]
    for i in range(options.workers):
        train = [str(HERE / "train.py"), "--kvstore", "dist_sync", *timeout]
        yield f"worker process {i}", [python, *([options.script] if options.script else train), *rest]


def show(options, rest):
    """A line of the shell for each process on each of the machines, the first being the scheduler's too."""
    hosts, port = options.hosts, options.port or 9091
    places = [hosts[0]]
    for number in (options.servers, options.workers):
        places += [hosts[i % len(hosts)] for i in range(number)]
    print(
        "# Start all of these in the project's directory, within the time-out. Worker 0, which prints and saves, is on"
    )
    print(
        "# the machine whose address comes last in the alphabet; --resume reads the run's directory on every machine."
    )
    for host, (name, command) in zip(places, commands(options, rest)):
        variables = environment(hosts[0], port, options.workers, options.servers, host)
        words = [f"{key}={shlex.quote(value)}" for key, value in variables.items()]
        print(f"# {name} on {host}\n{' '.join(words)} python {shlex.join([os.path.relpath(command[1]), *command[2:]])}")


class Processes:
    """The processes of one training on this machine."""

    def __init__(self, options, rest):
        self.running, self.stopped = {}, False
        with socket.socket() as free:
            free.bind((LOOPBACK, options.port or 0))
            port = free.getsockname()[1]
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
        own = {**environment(LOOPBACK, port, options.workers, options.servers, LOOPBACK)}
        own["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(max(1, len(cores) // options.workers)))
        workers = 0
        for name, command in commands(options, rest):
            pin = None
            if name.startswith("worker"):
                core, workers = cores[workers % len(cores)], workers + 1
                pin = (lambda core=core: os.sched_setaffinity(0, [core])) if options.pin else None
            # In a session of its own: Ctrl-C reaches this process alone, which passes it on to the workers.
            process = subprocess.Popen(command, env={**os.environ, **own}, start_new_session=True, preexec_fn=pin)
            self.running[name] = process

    def stop(self, number, frame):
        """The first signal asks the workers to save and end, the second ends all at once."""
        for name, process in self.running.items():
            if self.stopped or name.startswith("worker"):
                process.send_signal(signal.SIGKILL if self.stopped else signal.SIGTERM)
        self.stopped = True

    def wait(self):
        """The exit status of the first process that fails, which ends all others; 0 where none does."""
        status, told = 0, None
        while self.running:
            time.sleep(0.1)
            for name, process in [*self.running.items()]:
                code = process.poll()
                if code is None:
                    continue
                del self.running[name]
                asked = self.stopped and code > 128 and name.startswith("worker")  # saved, and ended as it was asked to
                if code and not status:
                    status = code if code > 0 else 128 - code
                if code and not asked and told is None:
                    told = name
                    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
                    others = ", ".join(self.running) or "no other"
                    print(f"{name} {how}; with it end: {others}", file=sys.stderr)
                    self.kill()
        return status

    def kill(self):
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def main(argv=None):
    argv = sys.argv[1:] if argv is None else list(argv)
    at = argv.index("--") if "--" in argv else len(argv)
    options, rest = parser().parse_args(argv[:at]), argv[at + 1 :]
    workers, servers = [len(options.hosts)] * 2 if options.hosts else (2, 1)
    options.workers = workers if options.workers is None else options.workers
    options.servers = servers if options.servers is None else options.servers
    try:
        check(options)
        if options.role:
            sys.path.insert(0, str(HERE.parent))
            os.environ.pop("DMLC_ROLE", None)  # or MXNet would serve at its import, unwatched
            from tinymnist.runtime import machines

            return machines.serve(options.role, options.timeout)
        if options.hosts:
            return show(options, rest)
        processes = Processes(options, rest)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, processes.stop)
    try:
        return processes.wait()
    finally:
        processes.kill()


if __name__ == "__main__":
    sys.exit(main())
