"""The tests, tested: one small thing at a time is made wrong in the source, and the tests of that file must notice.

    python tests/mutate.py [ops loss init optim batches idx] [--jobs 2] [--lines 10-40] [--limit SECONDS]

Each mutant lives in a temporary copy of the tree and is tried by the tests named in TESTS, until the first one fails.
Printed are the score, and every mutant that lived: to be killed by a new test, or to be seen to change nothing.
Docstrings, type hints and the words of error messages are left as they are, and so is the order of what is added or
multiplied.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
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
        for i in range(len(node.args) - 1):
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


def is_text(line):
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def nodes(node):
    """All that may be made wrong: no imports, type hints, docstrings, and none of an error's words"""
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
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


def killer(copy, module, text, limit):
    """The first test that fails with this text in place of the module; None where all pass. In a process of its own."""
    file = copy / "tinymnist" / f"{module}.py"
    kept = file.read_text("utf-8")
    file.write_text(text, "utf-8")
    child = os.fork()
    if child == 0:
        os.setsid()
        sys.path[:0] = [str(copy), str(copy / "tests")]
        os.chdir(copy)
        log = os.open("log", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        import pytest

        tests = [f"tests/{test}.py" for test in TESTS[module]]
        os._exit(pytest.main(["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow", *tests]))
    status, end = None, time.monotonic() + limit
    while status is None and time.monotonic() < end:
        time.sleep(0.02)
        pid, code = os.waitpid(child, os.WNOHANG)
        status = code if pid else None
    if status is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    file.write_text(kept, "utf-8")
    if status == 0:
        return None
    log = (copy / "log").read_text("utf-8", "replace")
    return (
        "nothing ends"
        if status is None
        else (re.findall(r"^(?:FAILED|ERROR) (\S+)", log, re.M) or ["it cannot run"])[0]
    )


def work(jobs):
    """Takes mutants from a queue, in one process that has imported what all of them import"""
    todo, done, limit = jobs
    import numpy

    numpy.bool = bool
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    import hypothesis.strategies  # noqa: F401
    import mxnet  # noqa: F401
    import pytest  # noqa: F401

    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place)
        for part in ("tinymnist", "tests", "scripts", "pyproject.toml"):
            (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, copy / part)
        while (job := todo.get()) is not None:
            module, line, what, text = job
            done.put((module, line, what, killer(copy, module, text, limit)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("modules", nargs="*", default=["ops", "loss", "init", "optim", "batches", "idx"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--lines", default="1-9999", help="of these lines only")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one mutant; what takes longer is killed")
    parser.add_argument("--verbose", action="store_true", help="print the killed too, and which test killed them")
    args = parser.parse_args()
    first, last = map(int, args.lines.split("-"))
    texts = {m: (ROOT / "tinymnist" / f"{m}.py").read_text("utf-8") for m in args.modules}
    jobs = [(m, *mutant) for m, text in texts.items() for mutant in mutants(text, range(first, last + 1))]
    untouched = [(m, 0, "as it is", text) for m, text in texts.items()]
    todo, done = multiprocessing.Queue(), multiprocessing.Queue()
    for job in [*untouched, *jobs, *[None] * args.jobs]:
        todo.put(job)
    workers = [multiprocessing.Process(target=work, args=((todo, done, args.limit),)) for _ in range(args.jobs)]
    for worker in workers:
        worker.start()
    lived = {m: [] for m in texts}
    for count in itertools.count(1):
        module, line, what, test = done.get()
        source = texts[module].splitlines()
        if line == 0 and test is not None:
            print(f"{module}: the tests fail without any change: {test}", flush=True)
        elif line and test is None:
            lived[module].append(f"{module}.py:{line}: {what}: {source[line - 1].strip()}")
            print(f"lives  {lived[module][-1]}", flush=True)
        elif line and args.verbose:
            print(f"killed {module}.py:{line}: {what}: {source[line - 1].strip()}  by {test}", flush=True)
        if count == len(jobs) + len(untouched):
            break
    for worker in workers:
        worker.join()
    for module in texts:
        total = sum(job[0] == module for job in jobs)
        killed = total - len(lived[module])
        print(f"{module:10} {killed:5} of {total:5} killed   {100 * killed / max(total, 1):5.1f} %")
    killed = len(jobs) - sum(map(len, lived.values()))
    print(f"{'all':10} {killed:5} of {len(jobs):5} killed   {100 * killed / max(len(jobs), 1):5.1f} %")


if __name__ == "__main__":
    main()
