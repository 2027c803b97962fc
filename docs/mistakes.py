"""Train with each classic mistake, and without it, and draw mistakes.png: python docs/mistakes.py

Every mistake is one changed line of LOOP, which is the loop of tinymnist/train.py. docs/MISTAKES.md explains them.
"""

import argparse
from pathlib import Path

import numpy as np

import tinymnist as tm
from tinymnist.backend import autograd, mx  # noqa: F401  # LOOP uses these
from tinymnist.batches import Batches, Split, permutation  # noqa: F401
from tinymnist.experiments import figures
from tinymnist.loss import softmax, softmax_cross_entropy  # noqa: F401

LOOP = """
train, test = data.train, data.test
model = tm.mlp()
model.initialize(seed)
optimizer = tm.Optimizer("sgd", lr=0.1)
batches = Batches(train, 50, mx.cpu())
for epoch in range(epochs):
    for images, labels in batches.epoch(permutation(seed, epoch, len(train.labels))):
        with autograd.record():
            loss = softmax_cross_entropy(model(images), labels)
        loss.backward()
        gradient = model.gradients
        optimizer.step(model.weights, gradient)
    with autograd.predict_mode():
        accuracies.append(tm.evaluate(model, test)[1])
"""
LOSS, STEP = "softmax_cross_entropy(model(images), labels)", "lr=0.1"
DROPOUT = ("tm.mlp()", "tm.dropout_cnn()")
SORTED = ("= data.train, data.test", "= sort(data.train), data.test")
MISTAKES = {  # title: changes of both trainings; for each wrong training, a text in LOOP and what replaces it
    "softmax twice": ([], [(LOSS, "softmax_cross_entropy(softmax(model(images)), labels)")]),
    "unscaled pixels": ([], [("model.initialize(seed)", "model.initialize(seed).std = 1 / 255")]),
    "labels shifted by one": ([], [(LOSS, "softmax_cross_entropy(model(images), (labels + 1) % 10)")]),
    "learning rate × 100 and ÷ 1000": ([], [(STEP, "lr=10"), (STEP, "lr=0.0001")]),
    "zero weights": ([], [("model.initialize(seed)", "model.allocate()")]),
    "gradients that accumulate": ([], [("gradient = model.gradients", "gradient = gradient + model.gradients")]),
    "test data in training": ([], [("= data.train, data.test", "= join(*data[:2]), data.test")]),
    "dropout on in testing": ([DROPOUT], [("predict_mode()", "train_mode()")]),
    "sum instead of mean": ([], [(LOSS, "len(labels) * " + LOSS)]),
    "transposed test images": ([], [("data.train, data.test", "data.train, transpose(data.test)")]),
    "too large initial weights": ([], [("tm.mlp()", 'tm.mlp(init=("normal", 1))')]),
    "unshuffled data": ([SORTED], [("permutation(seed, epoch, len(train.labels))", "np.arange(len(train.labels))")]),
}


def join(train, test):
    return Split(*map(np.concatenate, zip(train, test)))


def sort(split):
    """All zeros first, then all ones, …: data are often stored like this."""
    order = np.argsort(split.labels, kind="stable")
    return Split(split.images[order], split.labels[order])


def transpose(split):
    return Split(np.ascontiguousarray(split.images.transpose(0, 2, 1)), split.labels)


def train(changes, data, epochs, seed):
    """The test accuracy after each epoch of LOOP with these changes."""
    text, accuracies = LOOP, []
    for right, wrong in changes:
        assert text.count(right) == 1, right
        text = text.replace(right, wrong)
    names = {"data": data, "epochs": epochs, "seed": seed, "accuracies": accuracies, "gradient": 0}
    mx.random.seed(seed)
    exec(text, {**globals(), **names})
    return accuracies


def run_all(data, epochs, seed):
    """{title: [accuracies of the right training, those of each wrong one, …]}"""
    curves, right = {}, {}  # equal right trainings are made once
    for title, (both, wrongs) in MISTAKES.items():
        if str(both) not in right:
            right[str(both)] = train(both, data, epochs, seed)
        curves[title] = [right[str(both)], *(train([*both, wrong], data, epochs, seed) for wrong in wrongs)]
        print(f"{title:32}" + "".join(f"{100 * curve[-1]:8.1f}" for curve in curves[title]), flush=True)
    return curves


def draw(curves, title, path):
    figure, panels = figures.new_figure(12, 8, title, nrows=3, ncols=4, sharex=True, sharey=True)
    for axes, (name, (right, *wrongs)) in zip(panels.flat, curves.items()):
        epochs = range(1, len(right) + 1)
        axes.plot(epochs, 100 * np.array(right), color="tab:blue", label="right")
        for wrong, style in zip(wrongs, ("-", "--")):
            axes.plot(epochs, 100 * np.array(wrong), style, color="tab:red", label="wrong")
        axes.set(title=name, ylim=(0, 102))
        axes.grid(alpha=0.3)
    panels[0, 0].legend()
    figure.supxlabel("epoch")
    figure.supylabel("test accuracy, %")
    return figures.save_figure(figure, path)


def main(argv=None):
    parser = argparse.ArgumentParser(description="Draw what classic mistakes do to a training.")
    parser.add_argument("--data", default="digits", help="as in train.py; default: the embedded digits")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=Path(__file__).with_name("mistakes.png"), help="default: docs/mistakes.png")
    args = parser.parse_args(argv)
    data = tm.load(args.data)
    curves = run_all(data, args.epochs, args.seed)
    print(draw(curves, f"Twelve mistakes on {Path(data.name).name}, seed {args.seed}", args.out))


if __name__ == "__main__":
    main()
