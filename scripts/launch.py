"""Start one training in many processes: python scripts/launch.py --workers 2 -- --model lenet --epochs 3

The processes are a scheduler, servers and workers on this machine. If one of them fails, all end. With --print, nothing
is started, but the commands to start on several machines are printed. The words after -- go to scripts/train.py.
"""

from processes import start_child  # isort: skip  (first, as it lets Ctrl-C end the imports)

import argparse
import importlib.util
import itertools
import math
import os
import shlex
import signal
import socket
import sys
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
LOOPBACK = "127.0.0.1"
SHORTEST = 10  # seconds, as in tinymnist/runtime/machines.py, which would load MXNet into this process


def make_parser():
    description, details = __doc__.split("\n\n")
    p = argparse.ArgumentParser(description=description, epilog=details)
    p.add_argument("--workers", type=int, metavar="N", help="how many train; default: 2, with --print one per machine")
    p.add_argument("--servers", type=int, metavar="N", help="how many add gradients; default: 1, or one per machine")
    p.add_argument("--timeout", type=float, default=60, metavar="S", help="seconds to end after a death; default: 60")
    p.add_argument("--port", type=int, metavar="P", help="of the scheduler; default: a free one, with --print 9091")
    p.add_argument("--pin", action="store_true", help="bind each worker to one core, to different ones if possible")
    p.add_argument("--print", nargs="+", metavar="ADDRESS", dest="hosts", help="print the commands for these machines")
    p.add_argument("--script", metavar="FILE", help="what the workers run; default: scripts/train.py")
    p.add_argument("--role", choices=("scheduler", "server"), help="be this process; MXNet's DMLC_… variables are set")
    p.add_argument("words", nargs="*", metavar="-- WORD", help="the options of scripts/train.py")
    return p


def check(options):
    """Raise ValueError if an option is out of range or impossible on this system."""
    for name in ("workers", "servers"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be 1 or more, not {getattr(options, name)}")
    if not SHORTEST <= options.timeout < math.inf:
        raise ValueError(f"--timeout must be {SHORTEST} seconds or more, and finite, not {options.timeout}")
    if options.port is not None and not 0 <= options.port <= 65535:
        raise ValueError(f"--port must be from 0 to 65535, not {options.port}")
    if options.pin and not hasattr(os, "sched_setaffinity"):
        raise ValueError(f"--pin needs a system with os.sched_setaffinity, such as Linux, not {sys.platform}")


def plan(options, hosts, port):
    """(name, address, variables, command) for each process: the scheduler, the servers, the workers."""
    timeout = ["--timeout", f"{options.timeout:g}"]
    serve = [str(SCRIPTS / "launch.py"), *timeout, "--role"]
    train = [options.script] if options.script else [str(SCRIPTS / "train.py"), "--kvstore", "dist_sync", *timeout]
    for role, count, command in (
        ("scheduler", 1, [*serve, "scheduler"]),
        ("server", options.servers, [*serve, "server"]),
        ("worker", options.workers, [*train, *options.words]),
    ):
        for number in range(count):
            address = hosts[number % len(hosts)]
            variables = {  # which MXNet reads
                "DMLC_PS_ROOT_URI": hosts[0],
                "DMLC_PS_ROOT_PORT": str(port),
                "DMLC_NUM_WORKER": str(options.workers),
                "DMLC_NUM_SERVER": str(options.servers),
                "DMLC_NODE_HOST": address,
            }
            yield f"{role} process {number}", address, variables, command


def print_commands(options):
    """Print one shell command for each process on each machine. The scheduler is on the first machine."""
    print("# Start all of these in the project's directory, before the timeout ends. The worker whose address comes")
    print("# last in the alphabet prints and saves. --resume reads the run's directory on every machine.")
    for name, address, variables, (script, *rest) in plan(options, options.hosts, options.port or 9091):
        settings = " ".join(f"{key}={shlex.quote(value)}" for key, value in variables.items())
        print(f"# {name} on {address}\n{settings} python {shlex.join([os.path.relpath(script), *rest])}")


class Processes:
    """The processes of one training on this machine."""

    def __init__(self):
        self.running, self.stopping = {}, False

    def start(self, options):
        with socket.socket() as free:
            free.bind((LOOPBACK, options.port or 0))
            port = free.getsockname()[1]
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
        threads, core = {"OMP_NUM_THREADS": str(max(1, len(cores) // options.workers))}, itertools.cycle(cores)
        for name, _, variables, command in plan(options, [LOOPBACK], port):
            # Ctrl-C reaches only this process, which tells the workers.
            process = start_child([sys.executable, *command], env={**threads, **os.environ, **variables})
            self.running[name] = process
            if options.pin and name.startswith("worker"):
                os.sched_setaffinity(process.pid, [next(core)])

    def stop(self, number, frame):
        """The first signal tells the workers to save and end. The second ends all processes at once."""
        for name, process in self.running.items():
            if self.stopping or name.startswith("worker"):
                process.send_signal(signal.SIGKILL if self.stopping else signal.SIGTERM)
        self.stopping = True

    def wait(self):
        """Wait until all workers have ended, or one process has failed. Returns 0, or the first failure's status."""
        status = 0
        while any(name.startswith("worker") for name in self.running):
            time.sleep(0.1)
            for name, process in list(self.running.items()):
                code = process.poll()
                if code is None:
                    continue
                del self.running[name]
                status = status or (code if code >= 0 else 128 - code)
                saved = self.stopping and code > 128 and name.startswith("worker")  # as it was told to
                if code and not saved:
                    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
                    print(f"{name} {how}. These end with it: {', '.join(self.running) or 'none'}", file=sys.stderr)
                    return status
        return status

    def kill(self):
        for process in self.running.values():
            process.kill()
            process.wait()


def main(argv=None):
    options, others = make_parser().parse_known_args(argv)
    if others:
        print(f"launch.py has no option {others[0]}; write the options of scripts/train.py after --", file=sys.stderr)
        return 2
    if options.workers is None:
        options.workers = len(options.hosts) if options.hosts else 2
    if options.servers is None:
        options.servers = len(options.hosts) if options.hosts else 1
    processes = Processes()
    try:
        check(options)
        if options.hosts and not options.role:
            return print_commands(options)
        if options.role or not all(map(importlib.util.find_spec, ("tinymnist", "mxnet", "numpy"))):
            os.environ.pop("DMLC_ROLE", None)  # with it, MXNet would serve during its import
            import cli  # ends this process with a sentence if something is missing

            return cli.run(lambda _: cli.machines.serve(options.role, options.timeout))
        processes.start(options)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, processes.stop)
        return processes.wait()
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        processes.kill()


if __name__ == "__main__":
    sys.exit(main())
