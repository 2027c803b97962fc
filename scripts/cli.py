"""What all scripts share: a sentence and an exit status for every error, also if tinymnist is missing."""

import processes  # isort: skip  (first, as it lets Ctrl-C end the imports)

import argparse
import contextlib
import os
import shlex
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETUP = 'python3 -m venv .venv && .venv/bin/pip install -e ".[scripts]" && .venv/bin/pip install --no-deps mxnet==1.9.1'


def explain_import_error(error):
    """What to type when tinymnist, MXNet or numpy cannot be imported."""
    python, script = ROOT / ".venv" / "bin" / "python", os.path.relpath(Path(sys.argv[0]).resolve(), ROOT)
    again = shlex.join([".venv/bin/python", script, *sys.argv[1:]])
    ready = python.exists() and Path(sys.prefix) != ROOT / ".venv"
    type_this = again if ready else f"{SETUP} && {again}"
    return f"{sys.executable} cannot import tinymnist: {error}. Type in {ROOT}: {type_this}"


if not os.environ.get("OMP_NUM_THREADS", "1").isdigit():  # MXNet would abort without a sentence
    print(f"OMP_NUM_THREADS must be a whole number, not {os.environ['OMP_NUM_THREADS']!r}", file=sys.stderr)
    sys.exit(2)
try:
    import tinymnist as tm
    from tinymnist.backend import mx
    from tinymnist.runtime import machines
except (ImportError, OSError) as error:
    print(explain_import_error(error), file=sys.stderr)
    sys.exit(2)


class Parser(argparse.ArgumentParser):
    """An argument parser that prints one sentence for an error, without the usage."""

    def error(self, message):
        self.exit(2, f"{message}; --help lists the options\n")


def start(main):
    """End the process with the status that main() returns. Every script ends with this call."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors="replace")  # some terminals cannot print – or ±
    sys.exit(main())


def run(work, *, interrupted="stopped before the end"):
    """Call work(signals), print a sentence for an error, and return the exit status: what work returned, 0 for None.

    2: bad input, or standard output cannot be written. 1: training failed. 128 + number: a signal, 130 for Ctrl-C;
    `interrupted` is the sentence. `signals` is an active processes.Signals.
    """
    try:
        with processes.Signals() as signals:
            status = work(signals) or 0
            sys.stdout.flush()
        return status
    except SystemExit as end:  # argparse has printed the sentence
        return end.code
    except KeyboardInterrupt as stop:
        return fail(128 + (stop.args[0] if stop.args else signal.SIGINT), interrupted)
    except tm.Diverged as error:
        return fail(1, error)
    except (MemoryError, mx.MXNetError) as error:
        return fail(1, str(error).strip().splitlines()[-1] if str(error) else "out of memory")
    except (tm.DataError, ValueError, ImportError) as error:
        return fail(2, error)
    except OSError as error:
        if error.filename is not None:
            return fail(2, f"{error.filename}: {error.strerror}")
        with contextlib.suppress(OSError):  # Python writes what is left when it ends, and would fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return fail(2, f"standard output cannot be written: {error.strerror or error}")


def fail(status, sentence):
    """Print the sentence on stderr. Returns the status; a worker among several ends here, so that none waits for it."""
    print(sentence, file=sys.stderr)
    return machines.abort(status)


def make_command(script, *words):
    """What to type to run a script with these words, by the Python that is running."""
    here = os.getcwd() + os.sep
    paths = [os.path.abspath(path) for path in (sys.executable, script)]
    return shlex.join([*(path[len(here) :] if path.startswith(here) else path for path in paths), *map(str, words)])
