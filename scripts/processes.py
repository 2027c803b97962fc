"""Signals and child processes, for all scripts. Each script imports this file first, as it loads nothing large."""

import signal

if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until Signals: Ctrl-C during the imports prints no traceback

import contextlib
import ctypes
import os
import subprocess
import sys


class Signals:
    """Ctrl-C, SIGTERM and SIGHUP stop `run` where it can be resumed, or raise KeyboardInterrupt(number) without a run.

    A second signal kills the process. `number` is that of the signal, None if there was none.
    """

    run = number = None

    def __enter__(self):
        known = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        numbers = [number for number in known if signal.getsignal(number) != signal.SIG_IGN]
        self.before = {number: signal.signal(number, self.handle) for number in numbers}
        self.hook, sys.unraisablehook = sys.unraisablehook, self.end
        return self

    def __exit__(self, *_):
        sys.unraisablehook = self.hook
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def handle(self, number, frame):
        for each in self.before:
            signal.signal(each, signal.SIG_DFL)
        self.number = number
        if self.run is None:
            raise KeyboardInterrupt(number)
        self.run.stop = True

    def end(self, unraisable):
        """Python cannot pass on an exception from a destructor: it would print a traceback and go on."""
        if unraisable.exc_type is KeyboardInterrupt:
            os.kill(os.getpid(), self.number)
        self.hook(unraisable)


def start_child(command, **options):
    """Start a process that Linux kills when this one ends, however it ends. Ctrl-C in a terminal does not reach it."""
    parent = os.getpid()

    def end_with_parent():
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
            if os.getppid() != parent:  # it has ended already
                os._exit(1)

    return subprocess.Popen(command, start_new_session=True, preexec_fn=end_with_parent, **options)


@contextlib.contextmanager
def kill_at_end(process):
    """Kill a process, if it still runs, when the block ends."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
