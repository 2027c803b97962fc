"""A test of the tests: change one small thing in a module of the package, and see whether its tests fail.

    python tests/mutate.py [ops loss runtime/graph …] [--jobs 2] [--lines 10-40] [--sample 50] [--limit SECONDS]

No file is changed. For every changed version ("mutant") of the source, a fork of this process imports a copy of the
package with the mutant in it, and runs the tests until one fails. Scripts that a test starts import this copy, too.
Mutants that survive are printed: each needs a new test, unless the change has no effect.
Docstrings, type hints and error messages stay as they are, and so do things whose order does not matter: terms,
factors, the arguments of min and max, the types in an except clause or in isinstance. So do sizes and colours in
figures.
"""

import argparse
import ast
import multiprocessing
import os
import random
import re
import resource
import shutil
import sys
import tempfile
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = [
    "idx",
    "batches",
    "windows",
    "ops",
    "loss",
    "init",
    "network",
    "layers",
    "models",
    "optim",
    "checks",
    "train",
]
OTHER_TESTS = {  # of modules whose tests are not in the one file of the same name
    "windows": ["proofs/test_ops", "proofs/test_layers"],
    "network": ["proofs/test_layers", "proofs/test_models", "proofs/test_train"],
    "train": ["proofs/test_train", "proofs/test_reference"],
    "datasets/load": ["runtime/test_data"],
    "datasets/pictures": ["runtime/test_pictures", "runtime/test_predict"],
    "experiments/evaluation": ["runtime/test_predict", "runtime/test_experiments"],
    "experiments/recipes": ["runtime/test_experiments", "runtime/test_predict"],
    "runtime/checkpoint": ["runtime/test_checkpoint", "runtime/test_resume"],
    "runtime/devices": ["runtime/test_devices", "runtime/test_machines", "proofs/test_reference"],
    "runtime/files": ["runtime/test_checkpoint", "runtime/test_command_line"],
    "runtime/metrics": ["proofs/test_reference", "runtime/test_shares", "runtime/test_resume"],
    "runtime/run": ["runtime/test_resume", "proofs/test_reference", "runtime/test_dropout", "runtime/test_checkpoint"],
    "runtime/settings": [
        "proofs/test_reference",
        "runtime/test_resume",
        "proofs/test_checks",
        "runtime/test_checkpoint",
    ],
    "runtime/step": ["runtime/test_shares", "proofs/test_reference", "runtime/test_dropout", "runtime/test_resume"],
}
SWAPS = {ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.Mod: ast.Mult}
for a, b in [
    (ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.LShift, ast.RShift), (ast.BitAnd, ast.BitOr), (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn), (ast.And, ast.Or),
]:  # fmt: skip
    SWAPS.update({a: b, b: a})
NEGATED = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt}
REMOVABLE = (ast.Assign, ast.AugAssign, ast.Expr, ast.Raise, ast.Return, ast.Continue, ast.Break, ast.For, ast.If)
STYLE_KEYWORDS = {  # keywords of matplotlib
    "figsize", "dpi", "fontsize", "ms", "lw", "alpha", "color", "cmap", "shrink", "nbins", "ncols", "loc", "anchor",
}  # fmt: skip


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
            for new in filter(None, (SWAPS.get(type(op)), NEGATED.get(type(op)))):
                yield f"{type(op).__name__} becomes {new.__name__}", {"ops": replace_item(node.ops, i, new())}
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
            if keyword.arg and keyword.arg not in STYLE_KEYWORDS:
                yield f"without {keyword.arg}=", {"keywords": replace_item(node.keywords, i)}
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
                yield f"without line {line.lineno}", {field: replace_item(lines, i, ast.Pass())}


def replace_item(items, i, *new):
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
        if field == "args" and get_called_name(node) == "new_figure":
            value = value[2:]  # without width and height
        if field == "keywords":
            value = [keyword for keyword in value if keyword.arg not in STYLE_KEYWORDS]
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


def find_failure(name, text, limit):
    """The first test that fails if tinymnist/{name}.py has this text. None if all pass."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "tinymnist", Path(folder, "tinymnist"))
        Path(folder, "tinymnist", f"{name}.py").write_text(text, "utf-8")
        child = context.Process(target=run_tests, args=(name, folder, sender))
        child.start()
        child.join(limit)
        child.kill()
        child.join()
    with receiver, sender:
        if receiver.poll():
            return receiver.recv()
    return None if child.exitcode == 0 else f"pytest ends with {child.exitcode}"


def run_tests(name, folder, sender):
    """In a fork: run the tests of a module with the package in this folder until one fails, and send its name."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # an endless loop may fill the memory
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for module in [*sys.modules]:
        if module.startswith("tinymnist") and module != "tinymnist.backend":
            del sys.modules[module]
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = folder

    class Plugin:
        def pytest_runtest_logreport(self, report):
            if report.failed:
                sender.send(report.nodeid)

    folder, _, stem = name.rpartition("/")
    own = f"runtime/test_{stem}" if folder else f"proofs/test_{stem}"
    tests = [f"tests/{test}.py" for test in OTHER_TESTS.get(name, [own])]
    options = ["-x", "-n0", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    os._exit(pytest.main(options, plugins=[Plugin()]))


def score(name, lines, args):
    """(mutants of the module that a test finds, all mutants). Prints those that survive."""
    text = (ROOT / "tinymnist" / f"{name}.py").read_text("utf-8")
    mutants, source, killed = make_mutants(text, lines), text.splitlines(), 0
    if args.sample and args.sample < len(mutants):
        mutants = random.Random(0).sample(mutants, args.sample)
    if failure := find_failure(name, text, args.limit):
        sys.exit(f"{name}: the tests fail without a mutant: {failure}")
    with ThreadPool(args.jobs) as pool:
        failures = pool.imap(lambda mutant: find_failure(name, mutant[2], args.limit), mutants)
        for (line, what, _), failure in zip(mutants, failures):
            killed += failure is not None
            if args.verbose or failure is None:
                print(f"{name}.py:{line}: {what}: {source[line - 1].strip()}  {failure or 'LIVES'}", flush=True)
    return killed, len(mutants)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("modules", nargs="*", default=MODULES, help="such as ops or runtime/graph; default: the lesson")
    add("--jobs", type=int, default=2, help="processes")
    add("--lines", default="1-9999", help="only mutants of these lines")
    add("--sample", type=int, help="only so many mutants of each module, chosen at random with seed 0")
    add("--limit", type=float, default=60, help="seconds after which a mutant counts as killed")
    add("--verbose", action="store_true", help="print the killed mutants too, with the test that failed")
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    import tinymnist  # noqa: F401  # with MXNet: the forks need not load it again

    first, last = map(int, args.lines.split("-"))
    scores = {name: score(name, range(first, last + 1), args) for name in args.modules}
    scores["all"] = [sum(column) for column in zip(*scores.values())]
    for name, (killed, total) in scores.items():
        print(f"{name:22} {killed:5} of {total:5} killed   {100 * killed / max(total, 1):5.1f} %")


if __name__ == "__main__":
    main()
