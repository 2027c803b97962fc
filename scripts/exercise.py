"""Write a part of tinymnist yourself: python scripts/exercise.py lists the exercises."""

import ast
import inspect
import multiprocessing
import sys
from collections import namedtuple
from pathlib import Path

import cli

from tinymnist.backend import nd

# Where the function is; the files with the tests that judge it, and which of these (pytest -k); a hint.
Exercise = namedtuple("Exercise", "module function files tests hint")
OPS, LOSS = "test_ops.py test_gradients.py::test_operations", "test_loss.py test_gradients.py::test_operations"
EXERCISES = {
    "idx": Exercise("idx", "read_header", "test_idx.py", "not any_bytes",
        "Read 4 bytes, then 4 more for each dimension. np.frombuffer reads big-endian numbers with the type '>u4'. "
        "A short or strange file must raise DataError; DEFECTS in tests/proofs/test_idx.py has the sentences."),
    "batches": Exercise("batches", "Batches.epoch", "test_batches.py", "",
        "Cut `order` into pieces of self.batch_size and yield self.take(piece) for each. The last may be shorter."),
    "dense": Exercise("ops", "dense", OPS, "dense or parameters_of_other",
        "Images must become rows first: flatten. nd.dot(a, b, transpose_b=True) is a bᵀ. check_parameters refuses "
        "wrong shapes, and add_bias adds a bias if there is one."),
    "relu": Exercise("ops", "relu", OPS, "relu", "The value is easy; look at the gradient where x is 0."),
    "conv2d": Exercise("ops", "conv2d", OPS, "(conv2d and not CHWN) or parameters_of_other",
        "Begin with check_parameters. pair makes pairs. windows.pad_images(x, pad, 0.0) pads. Print a small table:"
        "\n    from tinymnist.windows import index_table; from tinymnist.backend import mx"
        "\n    print(index_table((1, 3, 3), (2, 2), (1, 1), (0, 0), (1, 1), mx.cpu()).reshape((5, 4)))"
        "\nnd.take takes these pixels, and one nd.dot does the rest. The table's last row points behind the last pixel:"
        "\nappend a row of ones to the pixels, or nd.take silently takes the last one. The bias multiplies the ones."),
    "max_pool2d": Exercise("ops", "max_pool2d", OPS, "max_pool2d and not CHWN",
        "reduce_windows does the work. Which function combines two pixels? Which number outside the image never wins?"),
    "dropout": Exercise("ops", "dropout", OPS, "dropout",
        "autograd.is_training() says whether to drop. nd.random.uniform_like(x) draws u; u >= rate is 1 with the "
        "probability 1 − rate. Dividing by 1 − rate keeps the mean. For axes, draw for a slice and broadcast it."),
    "log_softmax": Exercise("loss", "log_softmax", LOSS, "(softmax and not cross) or overflows",
        "e^z overflows for a logit of 1e4. Subtract the largest logit of each row first; that leaves p as it is."),
    "cross_entropy": Exercise("loss", "softmax_cross_entropy", LOSS, "cross_entropy or minus or overflows or logarithm",
        "nd.pick(x, labels) takes one number of each row. The result is a mean, of the shape (1,). Use "
        "log_softmax, as log(softmax) overflows."),
    "xavier": Exercise("init", "xavier", "test_init.py", "xavier",
        "The shape is (out, in) or (out, in, kh, kw). Compute the bound from it; then call uniform, with **options."),
    "momentum": Exercise("optim", "momentum", "test_optim.py", "momentum",
        "Change m and w in place: w += m. The line w = w + m makes a new array, and the network never sees it."),
    "adagrad": Exercise("optim", "adagrad", "test_optim.py", "adagrad",
        "First h, then w, both in place. eps is inside the root."),
    "rmsprop": Exercise("optim", "rmsprop", "test_optim.py", "rmsprop",
        "As adagrad, but h is a running mean of g²: multiply it by rho first, in place (h *= rho; h = … is lost)."),
    "adadelta": Exercise("optim", "adadelta", "test_optim.py", "adadelta",
        "The step δ uses the new a and the old b. b is updated after it, by δ². All in place."),
    "adam": Exercise("optim", "adam", "test_adam.py", "",
        "√(1 − β₂ᵗ) / (1 − β₁ᵗ) is one number. m is a running mean of g, v one of g². Here eps is outside the root."),
}  # fmt: skip
REFERENCE = 1_000_000  # what tinymnist has and the learner has not written gets line numbers from here on


def adam(w, g, m, v, *, t, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8):
    """m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  w ← w − lr √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + eps)

    t is the number of this step: 1 for the first. m and v start at 0, so they are too small in the first steps; the two
    powers correct this.   D. Kingma, J. Ba 2015, section 2, the faster form. tinymnist has no Adam: it is yours.
    """
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g * g
    w -= lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t) * m / (nd.sqrt(v) + eps)


def read_source(name):
    """The text of the module with the solution: for adam, optim.py with one more function."""
    text = (cli.ROOT / "tinymnist" / f"{EXERCISES[name].module}.py").read_text("utf-8")
    return text + "\n\n" + inspect.getsource(adam) if name == "adam" else text


def find_function(tree, path):
    """The list that contains the function "f" or "Class.f", and its place there. Raises ValueError if there is none."""
    body, *classes, name = [tree.body, *path.split(".")]
    for each in classes:
        body = next((node.body for node in body if getattr(node, "name", None) == each), [])
    for place, node in enumerate(body):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return body, place
    raise ValueError(f"the file has no function {path}; its line `def {name}` must stay")


def get_function(name):
    """The text of the module as lines, the lines of the function as a slice, the number of its lines before the body"""
    text = read_source(name)
    body, place = find_function(ast.parse(text), EXERCISES[name].function)
    node = body[place]
    first = min(line.lineno for line in [node, *node.decorator_list]) - 1
    return text.splitlines(keepends=True), slice(first, node.end_lineno), node.body[1].lineno - 1 - first


def make_empty(name):
    """The module without the body of the function. Its signature and docstring stay."""
    lines, part, head = get_function(name)
    indent = " " * (8 if "." in EXERCISES[name].function else 4)
    stub = f'{indent}raise NotImplementedError("write {EXERCISES[name].function} here")\n'
    if lines[part.start] == "@in_either_layout\n":
        stub = f"{indent}# in_either_layout transposes: here x is (C, H, W, N); return (…, OH, OW, N).\n" + stub
    return "".join([*lines[: part.start + head], stub, *lines[part.stop :]])


def combine(name, text):
    """The tree of the module with the function of `text`. Everything else is the reference.

    What the learner wrote beside the function, imports and functions of other names, comes before it.
    """
    tree, own = ast.parse(read_source(name)), ast.parse(text)
    known = {getattr(node, "name", ast.dump(node)) for node in tree.body}
    body, place = find_function(tree, EXERCISES[name].function)
    its_body, its_place = find_function(own, EXERCISES[name].function)
    ast.increment_lineno(tree, REFERENCE)
    body[place] = its_body[its_place]
    mine = [node for node in own.body if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef))]
    extra = [node for node in mine if getattr(node, "name", ast.dump(node)) not in known]
    after = next(i for i, node in enumerate(tree.body) if isinstance(node, (ast.FunctionDef, ast.ClassDef)))
    tree.body[after:after] = extra
    return tree


def begin(name, path):
    """Write the file to work in, unless it is there already."""
    again = cli.make_command(__file__, name, "--check") + "\nIf you are stuck, add --hint instead of --check."
    if path.exists():
        print(f"{path} is there already and stays as it is. Judge it with: {again}")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(make_empty(name), "utf-8")
    print(f"{path} is a copy of tinymnist/{path.name} without the body of {EXERCISES[name].function}. Write it, then:")
    print(again)


def check(name, path):
    if not path.exists():
        raise ValueError(f"{path} does not exist; begin with: {cli.make_command(__file__, name)}")
    sys.path.insert(0, str(cli.ROOT / "tests"))
    from judge import main

    process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(main(name, path)), daemon=True)
    process.start()
    process.join()
    return process.exitcode


def main(argv=None):
    parser = cli.Parser(description="Write a part of tinymnist yourself.")
    add = parser.add_argument
    add("name", nargs="?", choices=EXERCISES, metavar="NAME", help="an exercise; without it, list all")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--check", action="store_true", help="test the function in exercises/NAME; everything else is tinymnist's own")
    add("--hint", action="store_true", help="print a hint")
    add("--solution", action="store_true", help="print the function as tinymnist has it")

    def work(_):
        args = parser.parse_args(argv)
        if args.name is None:
            if args.check or args.hint or args.solution:
                raise ValueError("which exercise? Put its NAME before the option")
            for name, (module, function, *_) in EXERCISES.items():
                print(f"{name:15} {function} in {module}.py")
            return print("begin with, for example: " + cli.make_command(__file__, "relu"))
        path = Path("exercises") / args.name / f"{EXERCISES[args.name].module}.py"
        if args.hint:
            return print(EXERCISES[args.name].hint)
        if args.solution:
            lines, part, _ = get_function(args.name)
            return print("".join(lines[part]), end="")
        return check(args.name, path) if args.check else begin(args.name, path)

    return cli.run(work)


if __name__ == "__main__":
    cli.start(main)
