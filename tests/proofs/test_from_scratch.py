"""tinymnist is written in a set of primitives, and stays so: read in its syntax trees, and seen in what MXNet executes.

Whatever is reached through MXNet's modules must be one of these words, by whatever name or road it is reached; a module
may not be handed around, only looked into. Beyond that, what MXNet runs in a training step is looked at.
"""

import ast
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tinymnist import loss, models, optim
from tinymnist.backend import autograd, mx, nd

ROOT = Path(__file__).resolve().parents[2]
WORDS = {
    "mxnet.nd": """
        add subtract multiply divide power exp log sqrt square abs maximum minimum where relu tanh sigmoid erf
        sum mean max min argmax norm dot batch_dot
        reshape transpose expand_dims slice slice_axis split stack concat tile repeat pad flip take pick one_hot cast
        broadcast_add broadcast_sub broadcast_mul broadcast_div broadcast_to broadcast_axis broadcast_like
        array from_numpy arange full zeros ones zeros_like ones_like stop_gradient NDArray
        random.normal random.uniform random.uniform_like
        save load load_frombuffer waitall CachedOp""",
    "mxnet.autograd": """
        record pause train_mode predict_mode backward mark_variables get_symbol is_training is_recording""",
    "mxnet": """
        cpu gpu Context context.num_gpus random.seed kv.create image.imread image.imdecode image.imresize
        MXNetError __version__ base.check_call base._LIB.MXKVStoreGetNumDeadNode kv.kvstore_server.KVStoreServer""",
}
ALLOWED = {f"{module}.{word}" for module, words in WORDS.items() for word in words.split()}
SAME = {"mxnet.ndarray": "mxnet.nd", "mxnet.kvstore": "mxnet.kv"}
BUILT_IN = re.compile(
    "FullyConnected|Convolution|Deconvolution|Pooling|Activation|LeakyReLU|(log_)?softm(ax|in)|Softmax.*|.*_update|"
    "softmax_cross_entropy|Dropout|BatchNorm|LayerNorm|im2col|col2im|RNN|CTCLoss|Custom|CustomOp|Function|gluon|Trainer|"
    "_internal|contrib|npx|__dict__|__globals__|__builtins__|modules|CDLL|PyDLL|cdll|pydll"
)
METHODS = {  # what arrays and graphs have as methods beyond the words, and nothing else in Python has
    name
    for name in {*dir(nd.NDArray), *dir(mx.sym.Symbol)} & {*dir(nd)}
    if f"mxnet.nd.{name}" not in ALLOWED and not any(hasattr(kind, name) for kind in (str, list, dict, np.ndarray, np))
}
MODULES = {"nd", "mx", "mxnet", "ndarray", "autograd"}
BACK_DOORS = {"__import__", "eval", "exec", "globals", "locals", "importlib", "runpy", "__builtins__"}
BACKEND = "tinymnist/backend.py"  # MXNet is imported by backend.py, and from it by the others
LIBRARIES = {"numpy", "isal", "tqdm", "matplotlib", "PIL", "pooch", "requests", "sklearn", "tinymnist"}
LIBRARY = Path(os.__file__).parent  # of which Python 3.9 knows no list
STANDARD = {file.name.split(".")[0] for folder in (LIBRARY, LIBRARY / "lib-dynload") for file in folder.glob("*")}
STANDARD |= set(sys.builtin_module_names)
LIBRARIES |= set(getattr(sys, "stdlib_module_names", STANDARD)) - BACK_DOORS


def house():
    """{file: source} of all that must keep to the words; bench.py compares with the built-ins and may use them"""
    files = [*ROOT.glob("tinymnist/**/*.py"), *ROOT.glob("scripts/**/*.py")]
    return {f.relative_to(ROOT).as_posix(): f.read_text("utf-8") for f in files if f.name != "bench.py"}


def violations(sources):
    """["tinymnist/ops.py:12: mxnet.nd.Convolution", …] for sources {file: text}"""
    trees = {file: ast.parse(text) for file, text in sources.items()}
    imports = {file: imported(tree, file) for file, tree in trees.items()}
    table = dict(SAME)  # what a module's names stand for: {"tinymnist.ops.nd": "tinymnist.backend.nd", …}
    for file, names in imports.items():
        module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        table.update({f"{module}.{name}": target for name, target in names.items()})
    found = []
    for file, tree in trees.items():
        seen = {*of_imports(tree, file, table), *of_names(tree, imports[file], table)}
        seen |= set(of_strings(tree)) if file != BACKEND else set()
        found += [f"{file}:{line}: {what}" for line, what in sorted(seen)]
    return found


def origin(node, file):
    """The module that `from … import` names"""
    package = ".".join(file.split("/")[: -node.level]) if node.level else ""
    return ".".join(filter(None, [package, node.module]))


def imported(tree, file):
    """{name in the file: what it stands for}"""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names.update({a.asname or a.name: f"{origin(node, file)}.{a.name}" for a in node.names})
        elif isinstance(node, ast.Import):
            names.update({a.asname: a.name for a in node.names if a.asname})
            names.update({first: first for first in (a.name.split(".")[0] for a in node.names if not a.asname)})
    return names


def resolved(path, table):
    """The path, its beginning replaced by what it stands for, again and again"""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        beginning = ".".join(parts[:end])
        target = table.get(beginning, beginning)
        if not f"{target}.".startswith(f"{beginning}."):  # a module may hold a function of its own name
            return resolved(".".join([target, *parts[end:]]), table)
    return path


def of_imports(tree, file, table):
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            base = f"{origin(node, file)}." if isinstance(node, ast.ImportFrom) else ""
            modules = WORDS if file == BACKEND or base.startswith("tinymnist.") else ()
            for name in (base + alias.name for alias in node.names):
                path, first = resolved(name, table), name.split(".")[0]
                of_mxnet = path.split(".")[0] == "mxnet" and path not in modules and path not in ALLOWED
                strange = first not in LIBRARIES | {"mxnet"}
                built_in = first != "tinymnist" and BUILT_IN.fullmatch(path.split(".")[-1])
                if of_mxnet or strange or built_in or name.endswith("*"):
                    yield node.lineno, path


def of_names(tree, names, table):
    """Chains a.b.c, from their first name to their last attribute"""
    within = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)) and id(node) not in within:
            root, attributes = node, []
            while isinstance(root, ast.Attribute):
                root, attributes = root.value, [root.attr, *attributes]
            name = root.id if isinstance(root, ast.Name) else ""
            path = resolved(".".join([names.get(name, ""), *attributes]), table)
            if name in BACK_DOORS:
                yield node.lineno, name
            if path.startswith("mxnet"):
                if path not in ALLOWED:
                    yield node.lineno, path
            else:
                ours = path.startswith("tinymnist.")
                for word in attributes:
                    if (word in METHODS or BUILT_IN.fullmatch(word)) and not (ours and not word.startswith("_")):
                        yield node.lineno, word


def of_strings(tree):
    """Names in strings, for getattr and its kin. "softmax" is a model's too, but is not got from anything."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            last = node.value.split(".")[-1]
            if node.value in MODULES or (BUILT_IN.fullmatch(last) and node.value != "softmax"):
                yield node.lineno, repr(node.value)
        elif isinstance(node, ast.Call) and re.search("attr|methodcaller", ast.dump(node.func)):
            yield from (
                (node.lineno, "'softmax'") for a in node.args if ast.dump(a) == ast.dump(ast.Constant("softmax"))
            )


def test_the_house_keeps_to_the_words():
    assert violations(house()) == []


def test_there_is_a_house():
    assert {"tinymnist/ops.py", "tinymnist/backend.py", "scripts/train.py"} <= set(house())
    assert len(house()) > 15


def test_the_words_are_mxnets():
    for path in ALLOWED:
        thing = mx
        for part in path.split(".")[1:]:
            thing = getattr(thing, part)


PLANTS = [  # a line, and what is found in it
    ("nd.FullyConnected(x, w, b, num_hidden=3)", "mxnet.nd.FullyConnected"),
    ("y = x + nd.Convolution(x, w).sum()", "mxnet.nd.Convolution"),
    ("mx.nd.Pooling(x)", "mxnet.nd.Pooling"),
    ("mx.ndarray.Activation(x)", "mxnet.nd.Activation"),
    ("nd.op.LeakyReLU(x)", "mxnet.nd.op.LeakyReLU"),
    ("nd._internal._plus_scalar(x)", "mxnet.nd._internal._plus_scalar"),
    ("nd.contrib.AdaptiveAvgPooling2D(x)", "mxnet.nd.contrib.AdaptiveAvgPooling2D"),
    ("nd.softmax(x)", "mxnet.nd.softmax"),
    ("nd.log_softmax(x)", "mxnet.nd.log_softmax"),
    ("nd.SoftmaxOutput(x, y)", "mxnet.nd.SoftmaxOutput"),
    ("nd.im2col(x)", "mxnet.nd.im2col"),
    ("nd.sgd_mom_update(w, g, m)", "mxnet.nd.sgd_mom_update"),
    ("nd.sort(x)", "mxnet.nd.sort"),
    ("mx.gluon.nn.Dense(3)", "mxnet.gluon.nn.Dense"),
    ("mx.gluon.Trainer(p, 'sgd')", "mxnet.gluon.Trainer"),
    ("mx.optimizer.SGD()", "mxnet.optimizer.SGD"),
    ("mx.metric.Accuracy()", "mxnet.metric.Accuracy"),
    ("mx.init.Xavier()", "mxnet.init.Xavier"),
    ("mx.io.NDArrayIter(x)", "mxnet.io.NDArrayIter"),
    ("mx.sym.Convolution(x)", "mxnet.sym.Convolution"),
    ("mx.np.dot(x, x)", "mxnet.np.dot"),
    ("class F(autograd.Function): pass", "mxnet.autograd.Function"),
    ("@mx.operator.register('mine')\ndef f(): pass", "mxnet.operator.register"),
    ("import mxnet", "mxnet"),
    ("import mxnet.gluon.nn as layers", "mxnet.gluon.nn"),
    ("from mxnet import nd as x", "mxnet.nd"),
    ("from mxnet import gluon", "mxnet.gluon"),
    ("from mxnet.gluon import nn", "mxnet.gluon.nn"),
    ("from mxnet.ndarray import Convolution as dot", "mxnet.nd.Convolution"),
    ("from mxnet.ndarray.op import Dropout", "mxnet.nd.op.Dropout"),
    ("from mxnet import *", "mxnet.*"),
    ("from tinymnist.backend import *", "tinymnist.backend.*"),
    ("from tinymnist.backend import nd as dot; dot.Dropout(x)", "mxnet.nd.Dropout"),
    ("from tinymnist.ops import nd as quiet; quiet.Dropout(x)", "mxnet.nd.Dropout"),
    ("from .ops import nd as quiet; quiet.Dropout(x)", "mxnet.nd.Dropout"),
    ("from . import backend; backend.nd.Dropout(x)", "mxnet.nd.Dropout"),
    ("from . import ops as o; o.nd.Dropout(x)", "mxnet.nd.Dropout"),
    ("import tinymnist.ops as o; o.nd.Dropout(x)", "mxnet.nd.Dropout"),
    ("import tinymnist as tm; tm.loss.nd.Dropout(x)", "mxnet.nd.Dropout"),
    ("import tinymnist.backend; tinymnist.backend.mx.nd.Dropout(x)", "mxnet.nd.Dropout"),
    ("def f():\n from tinymnist.backend import mx as m; return m.sym", "mxnet.sym"),
    ("alias = nd", "mxnet.nd"),
    ("a, b = mx.nd, 1", "mxnet.nd"),
    ("(alias := mx)", "mxnet"),
    ("def f(x, lib=nd): return lib.Dropout(x)", "mxnet.nd"),
    ("(lambda lib: lib.Dropout(x))(nd)", "mxnet.nd"),
    ("[f(x) for f in (nd.dot, nd.Dropout)]", "mxnet.nd.Dropout"),
    ("f'{nd.Dropout(x)}'", "mxnet.nd.Dropout"),
    ("getattr(nd, 'Dropout')(x)", "mxnet.nd"),
    ("getattr(nd, 'Drop' + 'out')(x)", "mxnet.nd"),
    ("getattr(ops, 'nd')", "'nd'"),
    ("getattr(x, 'softmax')()", "'softmax'"),
    ("operator.methodcaller('softmax')(x)", "'softmax'"),
    ("operator.attrgetter('nd.Dropout')(ops)", "'nd.Dropout'"),
    ("vars(nd)['Dropout']", "mxnet.nd"),
    ("nd.__dict__['Dropout']", "mxnet.nd.__dict__"),
    ("ops.__dict__['nd']", "'nd'"),
    ("ops.relu.__globals__", "__globals__"),
    ("autograd.record.__globals__", "mxnet.autograd.record.__globals__"),
    ("nd.NDArray.softmax(x)", "mxnet.nd.NDArray.softmax"),
    ("x.softmax()", "softmax"),
    ("(x + 1).log_softmax(axis=1)", "log_softmax"),
    ("type(x).softmin(x)", "softmin"),
    ("x.topk()", "topk"),
    ("import importlib; importlib.import_module('mxnet.gluon')", "importlib"),
    ("from importlib import import_module", "importlib.import_module"),
    ("__import__('mxnet')", "__import__"),
    ("eval('nd.Dropout(x)')", "eval"),
    ("import sys; sys.modules['mxnet']", "modules"),
    ("globals()['n' + 'd']", "globals"),
    ("import ctypes; ctypes.CDLL('libmxnet.so')", "CDLL"),
    ("import torch", "torch"),
    ("from jax import numpy as np", "jax.numpy"),
]


def corner():
    """A part of the house, which is quickly read"""
    return {
        f: text for f, text in house().items() if f in ("tinymnist/backend.py", "tinymnist/ops.py", "tinymnist/loss.py")
    }


BEFORE = "from tinymnist.backend import autograd, mx, nd\nfrom tinymnist import ops\nimport operator\n"


@pytest.mark.parametrize("line, what", PLANTS)
def test_what_is_planted_is_found(line, what):
    found = violations({**corner(), "tinymnist/planted.py": f"{BEFORE}{line}\n"})
    number = 4 if "\n" not in line or line.startswith("@") else 5
    assert f"tinymnist/planted.py:{number}: {what}" in found
    assert all(v.startswith("tinymnist/planted.py:") for v in found)


def test_the_line_is_named_and_scripts_are_read():
    planted = {"scripts/x.py": "import tinymnist as tm\n\n\ntm.ops.nd.Dropout(3)\n", "tinymnist/ops.py": BEFORE}
    assert violations({**corner(), **planted}) == ["scripts/x.py:4: mxnet.nd.Dropout"]


def test_roads_through_several_files():
    planted = {
        "tinymnist/a.py": "from tinymnist.backend import nd as first\n",
        "tinymnist/b.py": "from tinymnist.a import first as second\n",
        "tinymnist/c.py": "from tinymnist import b\nb.second.exp(1)\nb.second.Pooling(1)\n",
    }
    assert violations({**corner(), **planted}) == ["tinymnist/c.py:3: mxnet.nd.Pooling"]


# And what is executed, by whatever road it came.

RUNS = """
    dot batch_dot add_n Concat concat SliceChannel split stack slice slice_axis take pick one_hot where pad Pad tile
    broadcast_like reshape Reshape transpose expand_dims Cast cast _copy identity SwapAxis sum mean max min argmax
    norm exp log sqrt square abs relu tanh sigmoid negative BlockGrad zeros_like ones_like _zeros _ones _full
    _random_uniform _random_normal _random_uniform_like SetValueOp"""
EXECUTED = set(RUNS.split())
ARITHMETIC = re.compile(
    "(_|broadcast_|elemwise_|_r|_grad_)?(add|plus|sub|minus|mul|div|maximum|minimum|power|equal|not_equal|greater|lesser|"
    "greater_equal|lesser_equal)(_scalar)?|_(greater|lesser)(_equal)?_scalar"
)
MACHINERY = re.compile("Copy[CG]PU2[CG]PU|Resource.*|DeleteVariable|WaitForVar|_FusedOp.*|sum_axis|_mean")


def executed(f):
    """The names of all operators that MXNet runs for f"""
    nd.waitall()
    # MXNet deletes this file first and writes it again when the process ends: never name one that somebody needs.
    trace = os.path.join(tempfile.gettempdir(), f"tinymnist-profile-{os.getpid()}.json")
    mx.profiler.set_config(profile_imperative=True, aggregate_stats=True, filename=trace)
    mx.profiler.set_state("run")
    try:
        f()
        nd.waitall()
    finally:
        mx.profiler.set_state("stop")
    names = json.loads(mx.profiler.dumps(reset=True, format="json"))["Time"]["operator"]
    return {name.removeprefix("_backward_") for name in names}


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("rule", optim.RULES)
def test_a_training_step_executes_no_built_in(name, rule):
    def step():
        model = models.MODELS[name]().initialize(0)
        optimizer = optim.Optimizer(rule, **{"lr": 0.1} if "lr" in optim.hyperparameters(rule) else {})
        with autograd.record():
            value = loss.softmax_cross_entropy(model(nd.ones((2, 1, 28, 28))), nd.array([1, 2]))
        value.backward()
        optimizer.step(model.weights, model.gradients)
        loss.accuracy(model(nd.ones((2, 1, 28, 28))), nd.array([1, 2])).asscalar()

    names = executed(step)
    assert "dot" in names
    assert {n for n in names if not (n in EXECUTED or ARITHMETIC.fullmatch(n) or MACHINERY.fullmatch(n))} == set()


@pytest.mark.parametrize(
    "f, name",
    [
        (lambda: nd.FullyConnected(nd.ones((2, 3)), nd.ones((4, 3)), num_hidden=4, no_bias=True), "FullyConnected"),
        (lambda: nd.ones((2, 3)).softmax(), "softmax"),
        (lambda: nd.sgd_update(nd.ones(3), nd.ones(3), lr=1), "sgd_update"),
    ],
)
def test_a_built_in_is_seen_when_it_runs(f, name):
    assert name in executed(f)
