"""tinymnist uses only the primitives of MXNet that DESIGN.md lists. Its source shows it, and so does MXNet's profiler.

One rule keeps the check of the source short: only backend.py imports MXNet, every other file imports `mx`, `nd` and
`autograd` from there under these names, and uses them only in expressions like `nd.dot`.
"""

import ast
import json
import operator
import os
import re
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tinymnist import loss
from tinymnist.backend import autograd, mx, nd
from tinymnist.models import MODELS
from tinymnist.optim import RULES, Optimizer

ROOT = Path(__file__).resolve().parents[2]
WORDS = {
    "nd": """add subtract multiply divide power exp log sqrt square abs maximum minimum where relu tanh sigmoid erf
        sum mean max min argmax norm dot batch_dot
        reshape transpose expand_dims slice slice_axis split stack concat tile repeat pad flip take pick one_hot cast
        broadcast_add broadcast_sub broadcast_mul broadcast_div broadcast_to broadcast_axis broadcast_like
        array from_numpy arange full zeros ones zeros_like ones_like stop_gradient NDArray
        random.normal random.uniform random.uniform_like save load load_frombuffer waitall CachedOp""",
    "autograd": "record pause train_mode predict_mode backward mark_variables get_symbol is_training is_recording",
    "mx": """cpu gpu Context context.num_gpus random.seed MXNetError
        kv.create kvstore.kvstore_server.KVStoreServer base.check_call base._LIB.MXEnginePushSync
        base._LIB.MXKVStoreGetNumDeadNode""",
}
ALLOWED = {f"{module}.{word}" for module, words in WORDS.items() for word in words.split()}
METHODS = {  # operators that arrays have as methods, as x.softmax(), and that nothing else in Python has
    name
    for name in {*dir(nd.NDArray), *dir(mx.sym.Symbol)} & {*dir(nd)} - set(WORDS["nd"].split())
    if not any(hasattr(kind, name) for kind in (str, list, dict, np.ndarray, np))
}
BACK_DOORS = {"mxnet", "__import__", "import_module", "eval", "exec"}
COMPARE = {"bench", "gluon_networks"}  # these scripts compare with the built-ins
LIBRARIES = {"numpy", "tqdm", "matplotlib", "PIL", "pooch", "requests", "scipy", "sklearn", "tinymnist"}
LIBRARIES |= {"judge", *(file.stem for file in ROOT.glob("scripts/*.py"))} - COMPARE  # judge: of the exercises
STANDARD = getattr(sys, "stdlib_module_names", None)  # Python 3.9 has no such list


def read_sources():
    """{"tinymnist/ops.py": its text, …}"""
    files = [*ROOT.glob("tinymnist/**/*.py"), *ROOT.glob("scripts/*.py")]
    return {f.relative_to(ROOT).as_posix(): f.read_text("utf-8") for f in files if f.stem not in COMPARE}


def find_violations(text):
    """["12: nd.Convolution", …]: the number of the line, and what does not belong there"""
    nodes, ours, found = [*ast.walk(ast.parse(text))], set(), []
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            base = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for path, name in ((base + a.name, a.asname or a.name) for a in node.names):
                library, *others = path.split(".")
                unknown = STANDARD and library not in STANDARD | LIBRARIES
                hidden = {library, *others, name} & {*WORDS, *BACK_DOORS} and path != f"tinymnist.backend.{name}"
                if unknown or hidden or path.endswith("*"):
                    found.append((node.lineno, path))
                elif library == "tinymnist" and name not in WORDS:
                    ours.add(name)
    inner = {node.value for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        if isinstance(node, (ast.Attribute, ast.Name)) and node not in inner:
            path = re.sub(r"(?s).*[^\w.]", "", ast.unparse(node))  # a.b.c; of f(x).b.c only .b.c
            name, *attributes = path.split(".")
            hidden = {name, *attributes} & {*WORDS, *BACK_DOORS} and path not in ALLOWED
            if hidden or (name not in ours and name not in WORDS and METHODS & {*attributes}):
                found.append((node.lineno, path))
    return [f"{line}: {what}" for line, what in sorted(found)]


def test_only_the_reading_of_pictures_uses_scipy():
    files = [file for file, text in read_sources().items() if re.search("(import|from) scipy", text)]
    assert files == ["tinymnist/datasets/pictures.py"]


def test_only_backend_imports_mxnet_and_all_use_only_the_primitives():
    sources = read_sources()
    backend = sources.pop("tinymnist/backend.py")
    assert {"tinymnist/ops.py", "tinymnist/runtime/run.py", "scripts/train.py"} <= set(sources)
    assert {file: find_violations(text) for file, text in sources.items() if find_violations(text)} == {}
    imports = [violation.split(": ")[1] for violation in find_violations(backend)]
    assert imports == ["mxnet", "mxnet.autograd", "mxnet.nd"]


def test_the_primitives_are_mxnets():
    modules = SimpleNamespace(nd=nd, mx=mx, autograd=autograd)
    assert all(operator.attrgetter(path)(modules) for path in ALLOWED)


@pytest.mark.parametrize(
    "line, found",
    [
        ("y = x + nd.softmax(x).sum()", "nd.softmax"),
        ("nd.contrib.AdaptiveAvgPooling2D(x)", "nd.contrib.AdaptiveAvgPooling2D"),
        ("(x + 1).log_softmax(axis=1)", ".log_softmax"),
        ("mx.gluon.nn.Dense(3)", "mx.gluon.nn.Dense"),
        ("class F(autograd.Function): pass", "autograd.Function"),
        ("from mxnet.ndarray import Convolution as dot", "mxnet.ndarray.Convolution"),
        ("from tinymnist.backend import nd as quiet", "tinymnist.backend.nd"),
        ("from tinymnist.ops import nd", "tinymnist.ops.nd"),
        ("ops.nd.Dropout(x)", "ops.nd.Dropout"),
        ("alias = nd", "nd"),
        ("getattr(nd, 'Drop' + 'out')(x)", "nd"),
        ("__import__('mxnet')", "__import__"),
    ],
)
def test_a_disguised_built_in_is_found(line, found):
    before = "from tinymnist.backend import autograd, mx, nd\nfrom tinymnist import ops\n"
    assert find_violations(before + line) == [f"3: {found}"]


@pytest.mark.skipif(STANDARD is None, reason="Python 3.9 has no list of its modules")
@pytest.mark.parametrize("line", ["import torch", "import os, jax.numpy", "import gluon_networks"])
def test_another_framework_is_found(line):
    assert find_violations(line) == [f"1: {line.split()[-1]}"]


RUNS = """dot batch_dot add_n Concat concat SliceChannel split stack slice slice_axis take pick one_hot where pad Pad
    tile broadcast_like reshape Reshape transpose expand_dims Cast cast _copy identity SwapAxis sum mean max min argmax
    norm exp log sqrt square abs relu tanh sigmoid negative BlockGrad zeros_like ones_like _zeros _ones _full
    _random_uniform _random_normal _random_uniform_like SetValueOp DeleteVariable WaitForVar sum_axis _mean"""
EXECUTED = set(RUNS.split())  # the primitives, and what autograd and the engine run for them
ARITHMETIC = re.compile(
    "(_|broadcast_|elemwise_|_r|_grad_)?(add|plus|sub|minus|mul|div|maximum|minimum|power|equal|not_equal|greater|lesser|"
    "greater_equal|lesser_equal)(_scalar)?|_(greater|lesser)(_equal)?_scalar|Copy[CG]PU2[CG]PU|Resource.*|_FusedOp.*"
)


def list_executed(f):
    """The names of all operators that MXNet runs during f()."""
    nd.waitall()
    # MXNet deletes this file, if it exists, and writes it again when the process ends, if its directory still exists.
    with tempfile.TemporaryDirectory() as folder:
        trace = os.path.join(folder, "trace.json")
        mx.profiler.set_config(profile_imperative=True, aggregate_stats=True, filename=trace)
        mx.profiler.set_state("run")
        try:
            f()
            nd.waitall()
        finally:
            mx.profiler.set_state("stop")
        names = json.loads(mx.profiler.dumps(reset=True, format="json"))["Time"]["operator"]
    return {name.removeprefix("_backward_") for name in names}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rule", RULES)
def test_a_training_step_executes_only_primitives(name, rule):
    def step():
        model = MODELS[name]().initialize(0)
        optimizer = Optimizer(rule, **({"lr": 0.1} if "lr" in RULES[rule].hyper else {}))
        with autograd.record():
            value = loss.softmax_cross_entropy(model(nd.ones((2, 1, 28, 28))), nd.array([1, 2]))
        value.backward()
        optimizer.step(model.weights, model.gradients)
        loss.accuracy(model(nd.ones((2, 1, 28, 28))), nd.array([1, 2])).asscalar()

    names = list_executed(step)
    assert "dot" in names
    assert {n for n in names if n not in EXECUTED and not ARITHMETIC.fullmatch(n)} == set()


@pytest.mark.parametrize(
    "f, name",
    [
        (lambda: nd.FullyConnected(nd.ones((2, 3)), nd.ones((4, 3)), num_hidden=4, no_bias=True), "FullyConnected"),
        (lambda: nd.ones((2, 3)).softmax(), "softmax"),
        (lambda: nd.sgd_update(nd.ones(3), nd.ones(3), lr=1), "sgd_update"),
    ],
)
def test_the_profiler_shows_a_built_in(f, name):
    assert name in list_executed(f)
    assert name not in EXECUTED and not ARITHMETIC.fullmatch(name)
