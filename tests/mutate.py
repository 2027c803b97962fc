"""A test of the tests: change one small thing in a module of the lesson, and see whether its tests fail.

    python tests/mutate.py [ops loss optim …] [--jobs 2] [--lines 10-40] [--limit SECONDS]

No file is changed. A process collects the tests of the module, and forks for every changed version ("mutant") of the
source. The fork loads the mutant and runs the tests until one fails. At the end come the scores and all mutants that
survived: each needs a new test, unless the change has no effect.
Docstrings, type hints and error messages stay as they are, and so do things whose order does not matter: terms,
factors, the arguments of min and max, the types in an except clause or in isinstance.
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import os
import re
import resource
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = ["idx", "batches", "ops", "windows", "loss", "init", "layers", "network", "models", "optim", "train"]
OTHER_TESTS = {"windows": "ops", "network": "layers"}  # modules without a test file of their own
SWAPS = {ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.Mod: ast.Mult}
for a, b in [
    (ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.LShift, ast.RShift), (ast.BitAnd, ast.BitOr), (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn), (ast.And, ast.Or),
]:  # fmt: skip
    SWAPS.update({a: b, b: a})
TURNS = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt}
REMOVABLE = (ast.Assign, ast.AugAssign, ast.Expr, ast.Raise, ast.Return, ast.Continue, ast.Break, ast.For, ast.If)


def list_changes(node):
    """(what, {field: new value}) for every way to make a node wrong."""
    if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in SWAPS:
        yield f"swap {type(node.op).__name__}", {"op": SWAPS[type(node.op)]()}
    if isinstance(node, ast.BinOp) and not isinstance(node.op, (ast.Add, ast.Mult)):
        yield "exchange operands", {"left": node.right, "right": node.left}
    if isinstance(node, ast.BoolOp):
        yield "only the first condition", {"values": node.values[:1]}
        yield "only the last condition", {"values": node.values[-1:]}
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for new in filter(None, (SWAPS.get(type(op)), TURNS.get(type(op)))):
                yield f"{type(op).__name__} becomes {new.__name__}", {"ops": put(node.ops, i, new())}
    if isinstance(node, ast.UnaryOp):
        yield "double the sign", {"operand": ast.UnaryOp(node.op, node.operand)}
    if isinstance(node, ast.Constant):
        for value in list_other_values(node.value):
            yield f"{node.value!r} becomes {value!r}", {"value": value}
    if isinstance(node, (ast.If, ast.IfExp, ast.While)):
        yield "negate the condition", {"test": ast.UnaryOp(ast.Not(), node.test)}
        for value in () if isinstance(node, ast.While) else (True, False):
            yield f"condition {value}", {"test": ast.Constant(value)}
    if isinstance(node, ast.Call):
        for i, keyword in enumerate(node.keywords):
            if keyword.arg:
                yield f"without {keyword.arg}=", {"keywords": put(node.keywords, i)}
        if get_called_name(node) not in ("min", "max"):
            yield from exchange_neighbours("args", node.args)
    if isinstance(node, (ast.Tuple, ast.List)) and isinstance(node.ctx, ast.Load):
        yield from exchange_neighbours("elts", node.elts)
    if isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield "return None", {"value": ast.Constant(None)}
    for field in ("body", "orelse", "finalbody"):
        lines = getattr(node, field, None)
        for i, line in enumerate(lines if isinstance(lines, list) else []):
            if isinstance(line, REMOVABLE) and not is_docstring(line):
                yield f"without line {line.lineno}", {field: put(lines, i, ast.Pass())}


def put(items, i, *new):
    """A list with other items in place of item i."""
    return [*items[:i], *new, *items[i + 1 :]]


def exchange_neighbours(field, items):
    for i in range(len(items) - 1):
        yield f"exchange items {i} and {i + 1}", {field: [*items[:i], items[i + 1], items[i], *items[i + 2 :]]}


def list_other_values(value):
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, float)):
        return [value + 1, value - 1]
    if value and isinstance(value, str):
        return [value + "?"]
    return [0] if value is None else []


def get_called_name(node):
    return getattr(getattr(node, "func", None), "id", None)


def is_docstring(line):
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def walk(node):
    """All nodes that may be changed: no imports, type hints, docstrings, decorators, error messages."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type"):
            continue
        if field == "args" and get_called_name(node) == "isinstance":
            value = value[:1]
        for child in value if isinstance(value, list) else [value]:
            kept = (ast.Import, ast.ImportFrom, ast.Raise, ast.JoinedStr)
            if isinstance(child, ast.AST) and not is_docstring(child) and not isinstance(child, kept):
                yield from walk(child)


def make_mutants(source, lines):
    """[(line, what, source of the mutant), …]"""
    tree = ast.parse(source)
    mutants, seen = [], {ast.unparse(tree)}
    for node in walk(tree):
        for what, change in list_changes(node):
            before = {field: getattr(node, field) for field in change}
            vars(node).update(change)
            text = ast.unparse(tree)
            vars(node).update(before)
            line = int((re.search(r"line (\d+)", what) or [0, getattr(node, "lineno", 0)])[1])
            if text not in seen and line in lines:
                seen.add(text)
                mutants.append((line, what, text))
    return mutants


class Loop:
    """A pytest plugin that runs the collected tests once for each mutant, in a fork of this process."""

    def __init__(self, name, jobs, results, limit):
        self.name, self.jobs, self.results, self.limit, self.failed = name, jobs, results, limit, None

    def pytest_runtest_logreport(self, report):
        self.failed = self.failed or (report.nodeid if report.failed else None)

    def pytest_runtestloop(self, session):
        module = sys.modules[f"tinymnist.{self.name}"]
        while (job := self.jobs.get()) is not None:
            line, what, text = job
            self.results.put((line, what, self.find_failure(session, module, text)))
        return True

    def find_failure(self, session, module, text):
        """The first test that fails if the module has this source. None if all pass."""
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=self.run_tests, args=(session, module, text, sender))
        child.start()
        child.join(self.limit)
        child.kill()
        child.join()
        return receiver.recv() if receiver.poll() else f"it does not end: exit code {child.exitcode}"

    def run_tests(self, session, module, text, sender):
        try:
            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # an endless loop may fill the memory
            replace(module, text)
            for item, following in zip(session.items, [*session.items[1:], None]):
                if not self.failed:
                    session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        except BaseException as error:
            self.failed = self.failed or f"loading it: {error!r}"
        sender.send(self.failed)


def replace(module, text):
    """Give a module the functions, classes and dictionaries of another source, in place: the tests refer to them."""
    before = {name: value for name, value in vars(module).items() if not name.startswith("__")}
    for name in before:
        delattr(module, name)
    exec(compile(text, module.__file__, "exec"), vars(module))
    for name, old in before.items():
        new = vars(module).get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            old.clear()
            old.update(new)
        elif getattr(old, "__module__", None) != module.__name__:
            continue
        elif isinstance(old, types.FunctionType) and isinstance(new, types.FunctionType):
            old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__
            for old_cell, new_cell in zip(old.__closure__ or (), new.__closure__ or ()):  # what a decorator wraps
                old_cell.cell_contents = new_cell.cell_contents
        elif isinstance(old, type) and isinstance(new, type):
            for key in {*vars(old), *vars(new)} - {"__dict__", "__weakref__", "__doc__"}:
                if key in vars(new):
                    setattr(old, key, vars(new)[key])
                else:
                    delattr(old, key)
        else:
            continue
        setattr(module, name, old)


def work(name, jobs, results, limit):
    """A worker process: pytest with the plugin."""
    import pytest

    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    tests = f"tests/proofs/test_{OTHER_TESTS.get(name, name)}.py"
    options = ["-q", "-n0", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "-m", "not slow", tests]
    code = pytest.main(options, plugins=[Loop(name, jobs, results, limit)])
    if code not in (0, 5):
        results.put((0, f"pytest ends with {code}", "the collection"))


def score(name, lines, args):
    """(mutants of the module that a test finds, all mutants). Prints those that survive."""
    text = (ROOT / "tinymnist" / f"{name}.py").read_text("utf-8")
    mutants, source = make_mutants(text, lines), text.splitlines()
    context = multiprocessing.get_context("spawn")  # every worker imports MXNet anew
    jobs, results = context.Queue(), context.Queue()
    for job in [(0, "no change", text), *mutants, *[None] * args.jobs]:
        jobs.put(job)
    workers = [context.Process(target=work, args=(name, jobs, results, args.limit)) for _ in range(args.jobs)]
    for worker in workers:
        worker.start()
    killed = 0
    for line, what, test in (results.get() for _ in range(len(mutants) + 1)):
        if line == 0:
            if test is None:
                continue
            jobs.cancel_join_thread()
            for worker in workers:
                worker.terminate()
            sys.exit(f"{name}: the tests fail without a mutant: {what}: {test}")
        killed += test is not None
        if args.verbose or test is None:
            fate = f"killed by {test}" if test else "lives"
            print(f"{name}.py:{line}: {what}: {source[line - 1].strip()}  {fate}", flush=True)
    return killed, len(mutants)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("modules", nargs="*", default=MODULES, help="modules of the lesson; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--lines", default="1-9999", help="only mutants of these lines")
    parser.add_argument("--limit", type=float, default=60, help="seconds after which a mutant counts as killed")
    parser.add_argument(
        "--verbose", action="store_true", help="print the killed mutants too, with the test that failed"
    )
    args = parser.parse_args()
    first, last = map(int, args.lines.split("-"))
    scores = {name: score(name, range(first, last + 1), args) for name in args.modules}
    scores["all"] = [sum(column) for column in zip(*scores.values())]
    for name, (killed, total) in scores.items():
        print(f"{name:10} {killed:5} of {total:5} killed   {100 * killed / max(total, 1):5.1f} %")


if __name__ == "__main__":
    main()
