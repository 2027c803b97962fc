"""The tests, tested: one small thing at a time is made wrong in the source, and the tests of that file must notice.

    python tests/mutate.py [ops loss init optim batches idx] [--jobs 2] [--lines 10-40] [--limit SECONDS]

Each mutant lives in the memory of a fork of a process that has collected the tests named in TESTS, and is tried by them
until the first one fails; no file is touched.
Printed are the score, and every mutant that lived: to be killed by a new test, or to be seen to change nothing.
Docstrings, type hints and the words of error messages are left as they are, and so is the order of what is added or
multiplied, of what the smallest or largest is taken, and of the types that an exception or an object may have.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import multiprocessing
import os
import re
import resource
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "ops": ["test_ops"],
    "loss": ["test_loss"],
    "init": ["test_init"],
    "optim": ["test_optim"],
    "layers": ["test_layers"],
    "models": ["test_models"],
    "batches": ["test_batches"],
    "idx": ["test_idx"],
}
SWAPS = {
    **{
        ast.Add: ast.Sub,
        ast.Sub: ast.Add,
        ast.Mult: ast.Div,
        ast.Div: ast.Mult,
        ast.FloorDiv: ast.Mult,
        ast.Pow: ast.Mult,
    },
    **{ast.Mod: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
}


def changes(node):
    """(what, field, another value of that field) for every way in which a node is made wrong"""
    kind = type(node)
    if kind in (ast.BinOp, ast.AugAssign, ast.BoolOp) and type(node.op) in SWAPS:
        yield f"{kind.__name__} {type(node.op).__name__}", "op", SWAPS[type(node.op)]()
    if kind is ast.BinOp and not isinstance(node.op, (ast.Add, ast.Mult)):
        yield "operands exchanged", "left,right", (node.right, node.left)
    if kind is ast.BoolOp:
        yield "first condition alone", "values", node.values[:1]
        yield "last condition alone", "values", node.values[-1:]
    if kind is ast.Compare:
        for i, op in enumerate(node.ops):
            if type(op) in SWAPS:
                yield f"compare {type(op).__name__}", "ops", [*node.ops[:i], SWAPS[type(op)](), *node.ops[i + 1 :]]
        if isinstance(node.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE)):
            turned = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt}[type(node.ops[0])]
            yield "compare turned", "ops", [turned(), *node.ops[1:]]
    if kind is ast.UnaryOp and isinstance(node.op, ast.USub):
        yield "sign", "op", ast.UAdd()
    if kind is ast.UnaryOp and isinstance(node.op, ast.Not):
        yield "not", "operand", ast.UnaryOp(ast.Not(), node.operand)
    if kind is ast.Constant:
        if isinstance(node.value, bool):
            yield "constant", "value", not node.value
        elif isinstance(node.value, (int, float)):
            yield "constant + 1", "value", node.value + 1
            yield "constant - 1", "value", node.value - 1
        elif isinstance(node.value, str) and node.value:
            yield "string", "value", node.value + "?"
        elif node.value is None:
            yield "None", "value", 0
    if kind in (ast.If, ast.IfExp, ast.While):
        yield "condition negated", "test", ast.UnaryOp(ast.Not(), node.test)
        if kind is not ast.While:
            yield "condition true", "test", ast.Constant(True)
            yield "condition false", "test", ast.Constant(False)
    if kind is ast.Call:
        for i, keyword in enumerate(node.keywords):
            if keyword.arg:
                yield f"without {keyword.arg}=", "keywords", [*node.keywords[:i], *node.keywords[i + 1 :]]
        for i in range(len(node.args) - 1 if called(node) not in ("min", "max") else 0):
            exchanged = [*node.args[:i], node.args[i + 1], node.args[i], *node.args[i + 2 :]]
            yield f"arguments {i} and {i + 1} exchanged", "args", exchanged
    if kind in (ast.Tuple, ast.List) and isinstance(node.ctx, ast.Load):
        for i in range(len(node.elts) - 1):
            exchanged = [*node.elts[:i], node.elts[i + 1], node.elts[i], *node.elts[i + 2 :]]
            yield f"elements {i} and {i + 1} exchanged", "elts", exchanged
    if kind is ast.Return and node.value is not None and not isinstance(node.value, ast.Constant):
        yield "return None", "value", ast.Constant(None)
    for field in ("body", "orelse", "finalbody"):
        lines = getattr(node, field, None)
        for i, line in enumerate(lines if isinstance(lines, list) else []):
            plain = (
                ast.Assign,
                ast.AugAssign,
                ast.Expr,
                ast.Raise,
                ast.Return,
                ast.Continue,
                ast.Break,
                ast.For,
                ast.If,
            )
            if isinstance(line, plain) and not is_text(line):
                yield f"without line {line.lineno}", field, [*lines[:i], ast.Pass(), *lines[i + 1 :]]


def called(node):
    return getattr(getattr(node, "func", None), "id", None)


def is_text(line):
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def nodes(node):
    """All that may be made wrong: no imports, type hints, docstrings, and none of an error's words"""
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type"):
            continue
        if field == "args" and called(node) == "isinstance":
            value = value[:1]
        for child in value if isinstance(value, list) else [value]:
            wordy = is_text(child) or isinstance(child, (ast.Import, ast.ImportFrom, ast.Raise, ast.JoinedStr))
            if isinstance(child, ast.AST) and not wordy:
                yield from nodes(child)


def mutants(source, lines):
    """(line, what, source) for all of them"""
    tree, seen = ast.parse(source), set()
    original = ast.unparse(tree)
    for node in nodes(tree):
        for what, fields, values in changes(node):
            fields = fields.split(",")
            values = values if len(fields) > 1 else (values,)
            before = [getattr(node, field) for field in fields]
            for field, value in zip(fields, values):
                setattr(node, field, value)
            text = ast.unparse(tree)
            for field, value in zip(fields, before):
                setattr(node, field, value)
            line = int((re.search(r"line (\d+)", what) or [0, getattr(node, "lineno", 0)])[1])
            if text != original and text not in seen and line in lines:
                seen.add(text)
                yield line, what, text


class Loop:
    """In place of pytest's loop over the collected tests: a loop over mutants, each tried in a fork of this process."""

    def __init__(self, name, todo, done, limit):
        self.name, self.todo, self.done, self.limit, self.failed = name, todo, done, limit, None

    def pytest_runtest_logreport(self, report):
        self.failed = self.failed or (report.nodeid if report.failed else None)

    def pytest_runtestloop(self, session):
        module = sys.modules[f"tinymnist.{self.name}"]
        while (job := self.todo.get()) is not None:
            line, what, text = job
            self.done.put((line, what, self.killer(session, module, text)))
        return True

    def killer(self, session, module, text):
        """The first test that fails with this text in place of the module; None where all pass"""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # a loop that never ends may fill the memory
                replace(module, text)
                for item, following in itertools.zip_longest(session.items, session.items[1:]):
                    if not self.failed:
                        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            except BaseException as error:
                self.failed = self.failed or f"reading it: {error!r}"
            os.write(writing, (self.failed or "").encode()[:4000])
            os._exit(0)
        os.close(writing)
        end = time.monotonic() + self.limit
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            time.sleep(0.01)
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
        with os.fdopen(reading, "rb") as pipe:  # killed, by this or by the system for its memory, it says nothing
            return pipe.read().decode() or (f"it does not end: status {ended[1]}" if ended[1] else None)


def replace(module, text):
    """Makes a module's functions, classes and dictionaries those of the text, in place: tests hold on to them."""
    before = dict(vars(module))
    for name in before:
        if not name.startswith("__"):
            delattr(module, name)
    exec(compile(text, module.__file__, "exec"), vars(module))
    for name, new in list(vars(module).items()):
        old = before.get(name)
        if isinstance(old, dict) and isinstance(new, dict) and not name.startswith("__"):
            old.clear()
            old.update(new)
        elif getattr(old, "__module__", None) != module.__name__:
            continue
        elif isinstance(old, type(replace)) and isinstance(new, type(replace)):
            old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__
            for cell, another in zip(old.__closure__ or (), new.__closure__ or ()):  # what a decorator has wrapped
                cell.cell_contents = another.cell_contents
        elif isinstance(old, type) and isinstance(new, type):
            for key in {*vars(old), *vars(new)} - {"__dict__", "__weakref__", "__doc__"}:
                if key in vars(new):
                    setattr(old, key, vars(new)[key])
                else:
                    delattr(old, key)
        else:
            continue
        setattr(module, name, old)


def work(name, todo, done, limit):
    import pytest

    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    tests = [f"tests/proofs/{test}.py" for test in TESTS[name]]
    options = ["-q", "-n0", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    code = pytest.main(options, plugins=[Loop(name, todo, done, limit)])
    if code not in (0, 5):
        done.put((0, f"pytest ends with {code}", "the collection"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("modules", nargs="*", default=["ops", "loss", "init", "optim", "batches", "idx"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--lines", default="1-9999", help="of these lines only")
    parser.add_argument("--limit", type=float, default=60, help="seconds for one mutant; what takes longer is killed")
    parser.add_argument("--verbose", action="store_true", help="print the killed too, and which test killed them")
    args = parser.parse_args()
    first, last = map(int, args.lines.split("-"))
    score = {name: tried(name, range(first, last + 1), args) for name in args.modules}
    score["all"] = [sum(column) for column in zip(*score.values())]
    for name, (killed, total) in score.items():
        print(f"{name:10} {killed:5} of {total:5} killed   {100 * killed / max(total, 1):5.1f} %")


def tried(name, lines, args):
    """How many mutants of a module are killed, and how many there are"""
    text = (ROOT / "tinymnist" / f"{name}.py").read_text("utf-8")
    jobs, source = list(mutants(text, lines)), text.splitlines()
    context = multiprocessing.get_context("spawn")  # each worker imports MXNet anew
    todo, done = context.Queue(), context.Queue()
    for job in [(0, "as it is", text), *jobs, *[None] * args.jobs]:
        todo.put(job)
    workers = [context.Process(target=work, args=(name, todo, done, args.limit)) for _ in range(args.jobs)]
    for worker in workers:
        worker.start()
    killed = 0
    for line, what, test in (done.get() for _ in range(len(jobs) + 1)):
        if line == 0:
            if test is not None:
                sys.exit(f"{name}: the tests fail without any change: {what}: {test}")
            continue
        killed += test is not None
        if args.verbose or test is None:
            fate = f"  by {test}" if test else ""
            print(
                f"{'killed' if test else 'lives '} {name}.py:{line}: {what}: {source[line - 1].strip()}{fate}",
                flush=True,
            )
    for worker in workers:
        worker.join()
    return killed, len(jobs)


if __name__ == "__main__":
    main()
