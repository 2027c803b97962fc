"""Every exercise can be solved alone, and its check refuses an empty and a wrong function."""

import ast

import pytest
from commands import command, module, refused

exercise = module("exercise")
each_exercise = pytest.mark.parametrize("name", exercise.EXERCISES)
pytestmark = pytest.mark.usefixtures("new_working_directory")


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
    assert len(other[place].body) == 2
    other[place].body = body[place].body
    assert ast.dump(full) == ast.dump(empty)


WRONG = [
    ("relu", "return nd.relu(x)", "return nd.abs(x)", "the result is wrong in"),
    (
        "log_softmax",
        "return shifted - nd.log(nd.exp(shifted).sum(axis=1, keepdims=True))",
        "return shifted - nd.stop_gradient(nd.log(nd.exp(shifted).sum(axis=1, keepdims=True)))",
        "the gradient by logits is",
    ),
    ("xavier", "return uniform(shape, bound", "return uniform(shape, 2 * bound", "yours"),
    ("momentum", "m -= lr * g\n    w += m", "m -= lr * g\n    w = w + m", "the result is wrong in"),
    ("batches", "yield self.take(order[begin : begin + self.batch_size])", "yield order[begin:]", "values to unpack"),
    (
        "dense",
        "y = nd.dot(x, weight, transpose_b=True)",
        "y = nd.FullyConnected(x, weight)",
        "nd.FullyConnected is not",
    ),
    ("idx", "sizes = stream.read(4 * magic[3])", "sizes = stream.read(4", "is not Python"),
    ("adam", "def adam(", "def eve(", "the file has no function adam"),
]


@pytest.mark.parametrize("name, right, wrong, sentence", WRONG)
def test_a_wrong_function_is_explained(name, right, wrong, sentence, capfd):
    source = exercise.read_source(name)
    assert right in source
    status, text = check(name, capfd, source.replace(right, wrong))
    assert status == 1 and sentence in text and "Traceback" not in text, text


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


def test_list_hint_and_solution(capsys):
    assert command("exercise")() == 0
    out = capsys.readouterr().out
    assert all(name in out for name in exercise.EXERCISES)
    for name in exercise.EXERCISES:
        assert command("exercise")(name, "--hint") == command("exercise")(name, "--solution") == 0
    assert "return nd.relu(x)" in out + capsys.readouterr().out
    assert refused(capsys, command("exercise")("relu", "--check"), "exercises/relu/ops.py does not exist; begin with")
