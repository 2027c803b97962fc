"""Judge an exercise: run its tests on the learner's function, and say in plain words what the first failure is.

    python tests/judge.py conv2d exercises/conv2d/ops.py

Only this function is the learner's; every other line of tinymnist is the reference.
"""

import contextlib
import inspect
import io
import os
import re
import sys
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path

import numpy as np
from commands import ROOT, module

exercise = module("exercise")
SHOWN = 5  # wrong elements


class Judge:
    """A plugin of pytest. It remembers what a test compares: (what it is, ours, expected, how different they are)."""

    def __init__(self, path):
        self.path, self.passed, self.pairs, self.sentences = str(path), 0, [], []

    def pytest_configure(self):
        """Watch the functions that compare, before any test imports them."""
        proof, testing = sys.modules["proof"], np.testing
        difference = proof.difference

        def watch(a, b, floor=0.0):
            frame, what = sys._getframe(1), "the result"
            number = sum(pair[0] is frame for pair in self.pairs)
            if (
                frame.f_back.f_code.co_name == "same" and number
            ):  # the result comes first, then a gradient for each input
                inputs = [*inspect.signature(frame.f_back.f_locals["ours"]).parameters]
                what = f"the gradient by {inputs[number - 1]}"
            elif frame.f_code.co_name == "finite_differences":
                what = "the slope, by the gradient and by a finite difference,"
            self.pairs.append([frame, what, a, b, np.inf])
            self.pairs[-1][-1] = difference(a, b, floor)
            return self.pairs[-1][-1]

        proof.difference = watch
        for name in ("assert_allclose", "assert_array_equal"):
            setattr(testing, name, self.watch_assertion(getattr(testing, name)))

    def watch_assertion(self, check):
        def call(ours, expected, *args, **options):
            try:
                check(ours, expected, *args, **options)
            except AssertionError:
                self.pairs.append([None, "the result", np.asarray(ours), np.asarray(expected), np.inf])
                raise

        return call

    def pytest_assertrepr_compare(self, op, left, right):
        if op == "==":
            self.pairs.append([None, "the result", left, right, np.inf])

    def pytest_runtest_setup(self, item):
        self.pairs.clear()

    def pytest_runtest_logreport(self, report):
        self.passed += report.when == "call" and report.passed

    def pytest_exception_interact(self, node, call):
        """A test has failed, or, if `node` is a file, could not be collected."""
        self.sentences += [describe_case(node), *self.explain(call.excinfo.value)]

    def explain(self, error):
        """Sentences about an exception of a test."""
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.path]
        if own and not isinstance(error, AssertionError):
            line = Path(self.path).read_text("utf-8").splitlines()[own[-1].lineno - 1].strip()
            return [f"line {own[-1].lineno} of your file raises {type(error).__name__}: {error}", f"    {line}"]
        if self.pairs:
            # The first that is clearly wrong; the worst if none is.
            _, what, ours, expected, _ = max(self.pairs, key=lambda pair: min(pair[-1], 1e-5))
            return compare(what, ours, expected)
        last = traceback.extract_tb(error.__traceback__)[-1]
        return [f"{type(error).__name__}: {error}".split("\nassert")[0], f"    the test says: {last.line}"]


def describe_case(item):
    """The name of the test and its parameters, without those that print as <… object at …>."""
    values = item.callspec.params if hasattr(item, "callspec") else {}
    texts = [f"{key} {getattr(value, '__name__', value)}" for key, value in values.items()]
    name = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")
    return ", ".join([name, *(text for text in texts if " <" not in text)])


def compare(what, ours, expected):
    """Both values side by side. Of arrays, the first wrong elements."""
    if not (isinstance(ours, np.ndarray) and isinstance(expected, np.ndarray)):
        return [f"{what} is wrong", f"    yours     {ours!s:.200}", f"    expected  {expected!s:.200}"]
    for name in ("shape", "dtype"):
        a, b = getattr(ours, name), getattr(expected, name)
        if a != b:
            return [f"{what} has the {name} {a}; expected {b}"]
    apart = np.abs(ours.astype("float64") - expected.astype("float64"))
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    wrong = np.argwhere(~(apart <= 1e-6 * largest))  # NaN is wrong
    wrong = wrong if len(wrong) else np.argwhere(apart == apart.max())
    lines = [
        f"{what} is wrong in {len(wrong)} of {ours.size} elements",
        f"    {'element':20}{'yours':>15}{'expected':>15}",
    ]
    for place in wrong[:SHOWN]:
        at = tuple(place)
        lines.append(f"    {'[' + ', '.join(map(str, place)) + ']':20}{ours[at]:15.7g}{expected[at]:15.7g}")
    return lines


def use(name, tree, path):
    """Import this tree in place of the module."""
    for loaded in [*sys.modules]:
        if loaded.startswith("tinymnist") and loaded != "tinymnist.backend":
            del sys.modules[loaded]
    get_code = SourceFileLoader.get_code

    def get_own(loader, wanted):
        return compile(tree, path, "exec") if wanted == f"tinymnist.{name}" else get_code(loader, wanted)

    SourceFileLoader.get_code = get_own


def main(name, path):
    try:
        import pytest
    except ImportError:
        sys.exit('the check needs pytest; type: pip install -e ".[test]"')
    text, path = Path(path).read_text("utf-8"), os.path.abspath(path)
    task = exercise.EXERCISES[name]
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT / "tests" / "proofs")]
    try:
        tree = exercise.combine(name, text)
    except SyntaxError as error:
        return (
            print(f"line {error.lineno} of your file is not Python: {error.msg}\n    {(error.text or '').strip()}") or 1
        )
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
        print(f"{name} is not right yet; {judge.passed} cases pass. The first that fails:\n  {case}")
        print("\n".join(f"  {line}" for line in lines))
    else:
        print(re.sub("\n+", "\n", output.getvalue()))
    return int(status != 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
