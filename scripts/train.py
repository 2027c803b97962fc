"""Train a digit classifier: python scripts/train.py --model lenet --opt adagrad"""

import cli  # isort: skip

import argparse
import dataclasses
import os
import signal
import sys
from pathlib import Path

import tinymnist as tm
from tinymnist.experiments import figures, recipes
from tinymnist.experiments.recipes import RECIPES
from tinymnist.runtime.devices import describe_threads
from tinymnist.runtime.files import new_run_directory
from tinymnist.runtime.progress import Progress

ARGUMENTS = ("activation", "hidden", "filters", "kernels", "strides", "rate")  # of models
HYPER = ("lr", "momentum", "rho", "eps")  # of update rules
SETTINGS = [field.name for field in dataclasses.fields(tm.Settings)]
WHOLE, REAL = {"type": int, "metavar": "N"}, {"type": float, "metavar": "X"}


def make_parser():
    """Most options are None by default. Then the recipe, the model and the rule decide: see recipes.make_run."""
    p = cli.Parser(description="Train a digit classifier.", formatter_class=argparse.RawDescriptionHelpFormatter)
    add = p.add_argument_group("what to train").add_argument
    add("--model", choices=tm.models.MODELS, help="default: softmax")
    add("--opt", choices=tm.optim.RULES, help="update rule; default: sgd")
    add("--activation", choices=("relu", "tanh", "sigmoid"), help="default: tanh for lenet, relu for the others")
    add("--hidden", nargs="+", **WHOLE, help="hidden units; default: mlp 128 64, lenet 500, dropout-cnn 50, cnn 64")
    filters = "lenet 20 50, dropout-cnn 10 20, cnn 16 32"
    add("--filters", nargs="+", **WHOLE, help=f"filters of each convolution; default: {filters}")
    add("--kernels", nargs="+", **WHOLE, help="kernel size of each convolution; default: 5 5")
    add("--strides", nargs="+", **WHOLE, help="stride of each convolution of cnn; default: 2 2")
    add("--rate", **REAL, help="share of the activations that dropout sets to 0; default: dropout-cnn 0.5, cnn 0")
    add("--recipe", metavar="NAME", help="a named experiment of --list-recipes; other options override its settings")
    add("--list-recipes", action="store_true", help="describe the recipes and exit")

    add = p.add_argument_group("how to train").add_argument
    add("--epochs", **WHOLE, help="default: softmax 5, dropout-cnn 8, others 10; 20 on the embedded digits")
    add("--batch-size", **WHOLE, help="default: 64 for softmax and dropout-cnn, 100 for the others")
    add("--lr", **REAL, help="learning rate; default: see the table below")
    add("--momentum", **REAL, help="for the rule momentum; default: 0.9")
    add("--rho", **REAL, help="decay rate; default: rmsprop 0.9, adadelta 0.95 (0.9 with softmax)")
    eps = "adagrad 1e-7, rmsprop 1e-8, adadelta 1e-5 (1e-6 with softmax and lenet)"
    add("--eps", **REAL, help=f"added to squares; default: {eps}")
    add("--lr-decay", **REAL, help="multiply the learning rate by this after each epoch; default: 1")
    switch = {"action": argparse.BooleanOptionalAction}
    add("--one-cycle", **switch, help="let the learning rate rise from 0 and fall to 0 again; default: no")
    add("--seed", **WHOLE, help="seed of the weights, the order of the images and dropout; default: 0")
    add("--device", metavar="LIST", help="cpu, gpu, gpu:1, a list such as cpu:0,cpu:1, or auto; default: cpu")
    add("--kvstore", choices=("local", "dist_sync"), help="dist_sync: with the workers of launch.py; default: local")
    add("--timeout", type=float, metavar="S", help="dist_sync: end within S seconds if a process dies; default: 60")
    add("--compile", **switch, help="replay training steps as static graphs; default: yes")

    add = p.add_argument_group("data").add_argument
    default = "default: $TINYMNIST_DATA, or mnist, or the embedded digits if there is no network"
    add("--data", metavar="NAME", help=f"mnist, fashion-mnist, digits, or a directory with four IDX files; {default}")
    add("--limit", **WHOLE, help="train on the first N training images only; default: all")
    add("--hold-out", **WHOLE, help="test on the last N training images, not on the test set, to choose settings")
    add("--normalize", **switch, help="shift and scale pixels to mean 0 and standard deviation 1; default: no")
    add("--augment", **switch, help="shift, rotate and scale the training images, anew in each epoch; default: no")

    add = p.add_argument_group("output").add_argument
    path = {"type": os.path.expanduser, "metavar": "DIR"}
    add("--save", **path, help="save the run in DIR; default: a new directory in runs/")
    add("--save-every", **WHOLE, default=0, help="also save every N batches; default: only after each epoch")
    add("--resume", **path, help="continue the run saved in DIR; a larger --epochs trains it for longer")
    add("--log-interval", **WHOLE, help="print loss and speed every N batches; default: only after each epoch")
    add("--show", action="store_true", help="open the figure with the curves at the end")
    add("--quiet", action="store_true", help="print only the last line")
    p.epilog = "learning rates:\n"
    for model in tm.models.MODELS:
        rates = {rule: recipes.HYPER[model][rule].get("lr") for rule in tm.optim.RULES}
        p.epilog += f"  {model:12} " + "  ".join(f"{rule} {lr:g}" for rule, lr in rates.items() if lr) + "\n"
    return p


def get_given(args, names):
    """{name: value} of those of these options that were given"""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def begin(args):
    """The run that the options ask for, and the directory it is saved in."""
    settings = get_given(args, SETTINGS)
    if args.resume is not None:
        for name in get_given(args, ("model", "opt", "recipe", "save", *ARGUMENTS, *HYPER)):
            raise ValueError(f"--{name} cannot be given with --resume: the saved run has its own")
        run = recipes.resume_run(args.resume, args.data, held_out=args.hold_out, **settings)
        if run.position.epoch == run.settings.epochs:
            more = f"give --epochs a number above {run.position.epoch} to continue it"
            print(f"{args.resume} has ended; {more}", file=sys.stderr)
        return run, args.resume
    what = {"recipe": args.recipe, "model": args.model, "rule": args.opt, "options": get_given(args, ARGUMENTS)}
    hyper = get_given(args, HYPER)
    run = recipes.make_run(args.data, **what, hyper=hyper, settings=settings, held_out=args.hold_out)
    directory = args.save
    if run.exchange.rank == 0 and not directory:  # of several workers, only worker 0 saves
        directory = new_run_directory(f"runs/{run.model.name}-{run.optimizer.name}")
    return run, directory


def count_epochs(n):
    return f"{n} epoch" if n == 1 else f"{n} epochs"


def list_recipes():
    for name, recipe in RECIPES.items():
        print(f"{name:17} {recipe.title}\n{'':17} published: {recipe.published}")


def explain_chance(run):
    """Print likely causes on stderr if, after at least 20 steps, the test accuracy is below twice that of guessing."""
    last, chance = run.history[-1], 1 / run.model.classes
    steps, accuracy = last.epoch * len(run.train_split.labels) // run.settings.batch_size, last.test_accuracy
    if steps >= 20 and accuracy < 2 * chance:
        found = f"the test accuracy {accuracy:.2f} is near that of guessing, {chance:.2f}"
        causes = "a learning rate far too large or too small, weights that are all zero or too large, wrong labels"
        print(f"{found}; likely causes: {causes} (docs/MISTAKES.md)", file=sys.stderr)


def report(run, directory, untrained, show):
    """Draw the curves next to the checkpoint, and print the last line."""
    last = run.history[-1]
    title = f"{run.model.name} by {run.optimizer.name} on {Path(run.data.name).name}, seed {run.settings.seed}"
    picture, mention = Path(directory) / "curves.png", " (curves.png shows the curves)"
    try:
        figures.draw_curves(run.history, len(run.train_split.labels), title, picture, untrained)
    except (ImportError, tm.DataError) as error:
        mention = ""
        print(f"the curves cannot be drawn: {error}", file=sys.stderr)
    accuracy, after = f"test accuracy {last.test_accuracy:.4f}", f"after {count_epochs(last.epoch)}"
    print(f"{accuracy} {after}; saved in {directory}{mention}")
    explain_chance(run)
    if show and mention:
        figures.open_figure(picture)


def report_stop(run, directory, then):
    """Say where the run stopped, and what to type to continue it."""
    position, words = run.position, ["--resume", directory]
    where = f"after {count_epochs(position.epoch)}"
    if position.batch:
        where = f"in epoch {position.epoch + 1} after {position.batch} batches"
    if then:
        words += ["--epochs", run.settings.epochs + then]
    print(f"stopped {where}; continue with: {cli.make_command(__file__, *words)}")


def train_run(run, directory, args, progress, signals):
    """Train to the end. Returns False if a signal stopped the run, in this worker or in another one."""
    signals.run = run
    try:
        run.train(on_batch=progress.on_batch, on_epoch=progress.on_epoch, save=directory, save_every=args.save_every)
    finally:
        signals.run = None
    return not (signals.number or run.stopping)


def train(args, signals):
    """Do what the options ask for; return the exit status."""
    run, directory = begin(args)
    recipe = RECIPES.get(args.recipe)
    then = recipe.then if recipe and args.epochs is None else 0
    if run.exchange.rank > 0:  # of several workers, only worker 0 prints and draws
        args.quiet, sys.stdout = True, open(os.devnull, "w")  # noqa: SIM115
    if not args.quiet:
        name, used = f", recipe {args.recipe}" if recipe else "", len(run.train_split.labels)
        print(f"{run.model!r} by {run.optimizer!r}, seed {run.settings.seed}{name}")
        limited = used < len(run.data.train.labels)
        print(run.data.source + (f"; trains on the first {used:,} only" if limited else ""))
        print(describe_threads(run.model, run.exchange.devices))
    untrained = None
    with Progress(run, quiet=args.quiet, intervals=args.log_interval is not None) as progress:
        if recipe and recipe.untrained:
            untrained = tm.evaluate(run.model, run.data.test)
            progress.write(f"    0        –          – {untrained[0]:10.4f} {untrained[1]:9.4f}")
        complete = train_run(run, directory, args, progress, signals)
        if complete and then:
            progress.write(f"continuing from {directory} for {then} more epochs")
            epochs, then = run.position.epoch + then, 0
            run = tm.resume(directory, run.data, epochs=epochs, kvstore=run.settings.kvstore)
            complete = train_run(run, directory, args, progress, signals)
    if not complete and (then or run.position.epoch < run.settings.epochs):
        report_stop(run, directory, then)
    elif run.history and run.exchange.rank == 0:
        report(run, directory, untrained, args.show and complete)
    return 0 if complete else 128 + (signals.number or signal.SIGTERM)


def main(argv=None):
    def work(signals):
        args = make_parser().parse_args(argv)
        return list_recipes() if args.list_recipes else train(args, signals)

    return cli.run(work, interrupted="stopped while nothing was being trained")


if __name__ == "__main__":
    cli.start(main)
