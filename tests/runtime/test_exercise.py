"""Every exercise can be solved alone, and its check refuses an empty and a wrong function."""

import ast
import os
import re
import signal
import textwrap
import time

import pytest
from commands import command, finish, module, refused, start

exercise = module("exercise")
each_exercise = pytest.mark.parametrize("name", exercise.EXERCISES)
pytestmark = [
    pytest.mark.usefixtures("new_working_directory"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),  # MXNet's threads are ready for a fork
]


def check(name, capfd, text):
    """The status and the output of the check, if the learner's file is this text."""
    assert command("exercise")(name) == 0
    capfd.readouterr()
    path = f"exercises/{name}/{exercise.EXERCISES[name].module}.py"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return command("exercise")(name, "--check"), capfd.readouterr().out


@each_exercise
def test_the_empty_function_fails_and_the_reference_passes(name, capfd):
    status, text = check(name, capfd, exercise.make_empty(name))
    assert status == 1 and "not right yet" in text and f"write {exercise.EXERCISES[name].function} here" in text, text
    assert "Traceback" not in text
    status, text = check(name, capfd, exercise.read_source(name))
    assert status == 0 and text.startswith(f"{name} is right"), text


@each_exercise
def test_only_the_body_is_missing(name):
    """Its signature and docstring are there, and so is everything else."""
    full, empty = (ast.parse(text) for text in (exercise.read_source(name), exercise.make_empty(name)))
    (body, place), (other, _) = (
        exercise.find_function(tree, exercise.EXERCISES[name].function) for tree in (full, empty)
    )
    assert ast.get_docstring(body[place]) == ast.get_docstring(other[place])
    assert ("return (…, OH, OW, N)" in exercise.make_empty(name)) == (name in ("conv2d", "max_pool2d"))
    assert len(other[place].body) == 2
    other[place].body = body[place].body
    assert ast.dump(full) == ast.dump(empty)


WRONG = [  # exercise, what is replaced, and by what; what the check says
    ("relu", "nd.relu(x)", "nd.abs(x)", "the result is wrong in"),
    ("relu", "nd.relu(x)", "nd.maximum(x, 0)", "the gradient by x is wrong in 24 of 120 elements"),
    ("log_softmax", "nd.log(nd.exp(shifted)", "nd.stop_gradient(nd.log(nd.exp(shifted))", "the gradient by logits is"),
    ("log_softmax", " - nd.stop_gradient(logits.max(axis=1, keepdims=True))", "", "-inf"),
    ("xavier", "return uniform(shape, bound", "return uniform(shape, 2 * bound", "is 2 times what is expected"),
    ("momentum", "w += m", "w = w + m", "\n  w stays as it is; change it in place"),
    ("momentum", "w += m", "w -= m", "\n  w after step 1 is wrong in"),
    ("rmsprop", "h *= rho\n    h +=", "h = rho * h +", "by the right formula, in the right order? w after step 2"),
    ("max_pool2d", "np.finfo(x.dtype).min", "-1e9", "the test says: assert (ops.max_pool2d("),
    ("batches", "yield self.take(order[begin : begin + self.batch_size])", "yield order[begin:]", "values to unpack"),
    ("batches", "order[begin : begin + self.batch_size]", "order[begin:]", "shape (7, 1, 2, 3); expected (0, 1, 2, 3)"),
    ("dense", "nd.dot(x, weight, transpose_b=True)", "nd.FullyConnected(x, weight)", "nd.FullyConnected is not"),
    ("dense", "transpose_b", "transpose_a", "dot shape error: [5,1] X [4,1]\n      y = nd.dot(x, weight, transpose_"),
    ("conv2d", ".reshape((filters, *table.shape[1:], n))", "", "shape or type\n      in to_nchw, x (4, 234): MXNet"),
    ("dropout", "if not 0 <= rate < 1", "if False", 'rate lies in [0, 1), not"\n      yours raises nothing'),
    ("dropout", "a dropout rate lies", "rates lie", 'in [0, 1), not"\n      yours says "rates lie in [0, 1), not -'),
    ("dropout", ">= rate", "< rate", "\n      the test says: assert abs((ours == 0).mean() - rate) <"),
    ("cross_entropy", ".mean()", "", "equals the mean of Gluon's, label_dtype float32, logits numbers, shape (3, 1)\n"),
    ("idx", "sizes = stream.read(4 * magic[3])", "sizes = stream.read(4", "is not Python"),
    ("idx", "stream.read(4 * magic[3])", "stream.read(magic[3])", "of your file raises DataError: 1 of 4 shape bytes"),
    ("idx", "return shape, dtype", "return shape", "a wrong shape or type\n      in read: "),
    ("idx", "shape bytes are there; the", "bytes, so the", "expected  … 0 of 8 shape bytes are there; the file is"),
    ("adam", "def adam(", "def eve(", "the file has no function adam"),
]  # fmt: skip


@pytest.mark.parametrize("name, right, wrong, sentence", WRONG)
def test_a_wrong_function_is_explained(name, right, wrong, sentence, capfd):
    lines, part, _ = exercise.get_function(name)
    before, own, after = ("".join(lines[part]) for part in (slice(part.start), part, slice(part.stop, None)))
    assert right in own
    status, text = check(name, capfd, before + own.replace(right, wrong) + after)
    assert status == 1 and sentence in text, text
    assert not any(word in text for word in ("Traceback", "../src", "cpu(0)", " 1 cases", "Regex"))


def test_the_rest_of_the_file_does_not_count_and_helpers_may_be_added(capfd):
    text = exercise.read_source("relu").replace("return nd.tanh(x)", "return 1 / 0")
    text = text.replace("def dense(", "def half(x):\n    return math.ldexp(1, -1) * x\n\n\ndef dense(")
    text = text.replace("return nd.relu(x)", "return half(2 * x) * (x > 0)").replace("import functools", "import math")
    status, out = check("relu", capfd, text)
    assert status == 0, out


def test_the_learners_file_is_never_overwritten(capfd):
    status, _ = check("relu", capfd, "my work")
    assert status == 1
    assert command("exercise")("relu") == 0 and "stays as it is" in capfd.readouterr().out
    with open("exercises/relu/ops.py") as file:
        assert file.read() == "my work"


def test_ctrl_c_ends_an_endless_loop():
    begun = os.path.abspath("begun")
    loop = f"open({begun!r}, 'w').close()\n    while True:\n        pass"
    os.makedirs("exercises/relu")
    with open("exercises/relu/ops.py", "w", encoding="utf-8") as file:
        file.write(exercise.read_source("relu").replace("return nd.relu(x)", loop))
    process = start("relu --check", python=[exercise.__file__])
    while process.poll() is None and not os.path.exists(begun):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, "", "stopped before the end\n")  # it waits for the fork too


def test_list_hint_and_solution(capsys):
    assert command("exercise")() == 0
    out = capsys.readouterr().out
    assert all(name in out for name in exercise.EXERCISES)
    assert refused(capsys, command("exercise")("--check"), "which exercise?")
    for name in exercise.EXERCISES:
        assert command("exercise")(name, "--hint") == command("exercise")(name, "--solution") == 0
    exec(textwrap.dedent("\n".join(re.findall("^    .*", exercise.EXERCISES["conv2d"].hint, re.MULTILINE))))
    out += capsys.readouterr().out
    assert "[9. 9. 9. 9.]" in out or "[9 9 9 9]" in out  # the small table
    assert "return nd.relu(x)" in out
    assert refused(capsys, command("exercise")("relu", "--check"), "exercises/relu/ops.py does not exist; begin with")
