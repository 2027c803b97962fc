"""Judge an exercise: run its tests on the learner's function, and say in plain words what the first failure is.

scripts/exercise.py runs main in a fork, where MXNet is loaded already. main changes the modules of this process.
Only this function is the learner's; every other line of tinymnist is the reference.
"""

import contextlib
import inspect
import io
import linecache
import os
import re
import signal
import sys
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path

import numpy as np
from commands import ROOT, module

from tinymnist.backend import mx

try:
    import pytest
except ImportError:
    sys.exit('the check needs pytest; type: pip install -e ".[test]"')
exercise = module("exercise")
SHOWN = 5  # wrong elements


class Judge:
    """A plugin of pytest. It remembers what a test compares: (what it is, ours, expected, how different they are)."""

    def __init__(self, path):
        self.path, self.passed, self.pairs, self.sentences, self.wanted = path, 0, [], [], []

    def pytest_configure(self):
        """Watch the functions that compare, before any test imports them."""
        proof = sys.modules["proof"]
        difference = proof.difference

        def watch(a, b, floor=0.0):
            frame, what = sys._getframe(1), "the result"
            number = sum(pair[0] is frame for pair in self.pairs)
            if frame.f_back.f_code.co_name == "same" and number:  # the result comes first, then all gradients
                what = f"the gradient by {[*inspect.signature(frame.f_back.f_locals['ours']).parameters][number - 1]}"
            elif frame.f_code.co_name == "finite_differences":
                what = "the slope, by the gradient and by a finite difference,"
            elif "walk" in frame.f_code.co_names:
                what = "w after every step"
            self.pairs.append([frame, what, a, b, np.inf])
            self.pairs[-1][-1] = difference(a, b, floor)
            return self.pairs[-1][-1]

        proof.difference = watch
        self.raises, pytest.raises = pytest.raises, self.watch_raises

    @contextlib.contextmanager
    def watch_raises(self, kind, match=""):
        text = re.sub(r"\\(.)", r"\1", match.replace(".*", " … "))  # without the signs of a regular expression
        self.wanted = [f"the test expects a {kind.__name__}" + f' like "{text}"' * bool(match)]
        with self.raises(kind) as error:
            yield error
        assert re.search(match, str(error.value)), f'says "{error.value}"'
        self.wanted = []

    def pytest_assertrepr_compare(self, op, left, right):
        if op == "==" and not isinstance(left, np.ndarray):
            self.pairs.append([None, "the result", left, right, np.inf])
        elif op == "in" and isinstance(left, str):
            self.pairs.append([None, "the sentence", right, "… " + left, np.inf])

    def pytest_runtest_setup(self, item):
        self.pairs, self.wanted = [], []

    def pytest_runtest_logreport(self, report):
        self.passed += report.when == "call" and report.passed

    def pytest_exception_interact(self, node, call):
        """A test has failed, or, if `node` is a file, could not be collected."""
        self.sentences += [describe_case(node), *self.explain(call.excinfo.value)]

    def explain(self, error):
        """Sentences about an exception of a test."""
        while hasattr(error, "exceptions"):  # hypothesis has found several
            error = error.exceptions[0]
        error = error.__cause__ or error  # read_header's errors get the name of the file
        # Of MXNet's messages, only the end says what is wrong.
        text = f"{type(error).__name__}: " + re.sub("(?s).*(Check failed|MXNetError): ", "", str(error)).strip(": ")
        frames = [*traceback.walk_tb(error.__traceback__)]
        for f, _ in frames:
            if f.f_code.co_name in ("assert_allclose", "assert_array_equal"):  # the arguments come first
                self.pairs.append([None, "the result", *map(np.asarray, [*f.f_locals.values()][:2]), np.inf])
        own = [n for f, n in frames if f.f_code.co_filename == self.path and n < exercise.REFERENCE]
        if own and not isinstance(error, AssertionError):
            line = linecache.getline(self.path, own[-1]).strip()
            return [f"line {own[-1]} of your file raises {text}", f"    {line}", *self.wanted]
        if self.wanted:
            return [*self.wanted, f"    yours {error if isinstance(error, AssertionError) else 'raises nothing'}"]
        ours = (self.path, str(ROOT / "tinymnist"), str(ROOT / "tests"))
        frame, number = [(f, n) for f, n in frames if f.f_code.co_filename.startswith(ours)][-1]
        if not isinstance(error, AssertionError):
            shapes = "".join(
                f", {key} {value.shape}" for key, value in frame.f_locals.items() if hasattr(value, "shape")
            )
            return ["your function returned a wrong shape or type", f"    in {frame.f_code.co_name}{shapes}: {text}"]
        if self.pairs:
            # The first that is clearly wrong; the worst if none is.
            _, what, ours, expected, _ = max(self.pairs, key=lambda pair: min(pair[-1], 1e-5))
            return compare(what, ours, expected)
        line = linecache.getline(frame.f_code.co_filename, number).strip()
        return [text.splitlines()[0], f"    the test says: {line}"]


def describe_case(item):
    """The name of the test and its parameters, without usual ones and those that print as <… object at …>."""
    values = item.callspec.params if hasattr(item, "callspec") else {}
    texts = [f"{key} {getattr(value, '__name__', value)}" for key, value in values.items()]
    name = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ").replace("gluons", "Gluon's")
    return ", ".join([name, *(text for text in texts if not re.search(r" <|^device cpu|^dtype float32| \[\]$", text))])


def compare(what, ours, expected):
    """Both values side by side. Of arrays, the first wrong elements."""
    if not (isinstance(ours, np.ndarray) and isinstance(expected, np.ndarray)):
        return [f"{what} is wrong", f"    yours     {ours!s:.200}", f"    expected  {expected!s:.200}"]
    for name in ("shape", "dtype"):
        a, b = getattr(ours, name), getattr(expected, name)
        if a != b:
            return [f"{what} has the {name} {a}; expected {b}"]
    if what == "w after every step":
        step = np.argmin(np.abs(ours - expected).max((1, 2)) <= 1e-5 * np.abs(expected).max())
        if (ours[0] == ours[-1]).all():
            return ["w stays as it is; change it in place, as in w -= …"]
        right = "step 1 is right: is the state changed in place, by the right formula, in the right order? "
        what = f"{right if step > 0 else ''}w after step {step + 1}"
        ours, expected = ours[step], expected[step]
    apart = np.abs(ours.astype("float64") - expected.astype("float64"))
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    wrong = np.argwhere(~(apart <= 1e-6 * largest))  # NaN is wrong
    wrong = wrong if len(wrong) else np.argwhere(apart == apart.max())
    ratios = ours[tuple(wrong.T)].astype("float64") / expected[tuple(wrong.T)]
    if len(wrong) == ours.size > 1 and np.ptp(ratios) < 1e-3 * abs(ratios[0]):
        what = f"everything is {ratios[0]:.4g} times what is expected: {what}"
    lines = [f"    {[*map(int, at)]!s:20}{ours[at]:15.7g}{expected[at]:15.7g}" for at in map(tuple, wrong[:SHOWN])]
    head = f"    {'element':20}{'yours':>15}{'expected':>15}"
    return [f"{what} is wrong in {len(wrong)} of {ours.size} elements", head, *lines]


def use(name, tree, path):
    """Import this tree in place of the module, and the tests again."""
    for loaded in [*sys.modules]:
        if re.match("tinymnist|conftest|proof|test_", loaded) and loaded != "tinymnist.backend":
            del sys.modules[loaded]
    get_code = SourceFileLoader.get_code

    def get_own(loader, wanted):
        return compile(tree, path, "exec") if wanted == f"tinymnist.{name}" else get_code(loader, wanted)

    SourceFileLoader.get_code = get_own


def main(name, path):
    text, path, task = Path(path).read_text("utf-8"), os.path.abspath(path), exercise.EXERCISES[name]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # Ctrl-C prints no traceback
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "proofs")]
    mx.context.num_gpus = lambda: 0  # the CPU is enough, and a fork cannot use a GPU that the parent has used
    try:
        tree = exercise.combine(name, text)
    except SyntaxError as error:
        print(f"line {error.lineno} of your file is not Python: {error.msg}\n    {(error.text or '').strip()}")
        return 1
    except ValueError as error:
        return print(error) or 1
    from test_from_scratch import find_violations

    if found := find_violations(text):
        return print(f"line {found[0]} is not one of the primitives; tests/proofs/test_from_scratch.py lists them") or 1
    use(task.module, tree, path)
    judge = Judge(path)
    files = [f"tests/proofs/{file}" for file in task.files.split()]
    options = ["-x", "-q", "-n0", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow", "-k", task.tests, *files]
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(output):
        status = pytest.main(options, plugins=[judge])
    if status == 0:
        print(f"{name} is right: all {judge.passed} cases pass")
    elif judge.sentences:
        case, *lines = judge.sentences
        number = f"{judge.passed} case{' passes' if judge.passed == 1 else 's pass'}"
        print(f"{name} is not right yet; {number}. The first that fails:\n  {case}")
        print("\n".join(f"  {line}" for line in lines))
    elif status != pytest.ExitCode.INTERRUPTED:
        print(re.sub("\n+", "\n", output.getvalue()))
    return int(status != 0)
