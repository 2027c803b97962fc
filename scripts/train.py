"""Trains a digit classifier: python scripts/train.py --model lenet --opt adagrad"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shlex
import signal
import sys
from pathlib import Path

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while MXNet is imported, two seconds, prints no traceback

import tinymnist as tm
from tinymnist.backend import mx
from tinymnist.experiments import recipes
from tinymnist.experiments.recipes import RECIPES, SETTINGS, hyper
from tinymnist.runtime import machines
from tinymnist.runtime.files import fresh

HEADER = "epoch     loss  train acc  test loss  test acc        lr   images/s  seconds"
NAMES = ", ".join(RECIPES)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{message}; --help lists the options\n")


def parser():
    """Options default to None, which means: what suits the model and the rule, or what the recipe says."""
    p = Parser(description="Train a digit classifier.", formatter_class=argparse.RawTextHelpFormatter)
    what = p.add_argument_group("what to train")
    what.add_argument("--model", choices=tm.models.MODELS, help="default: softmax")
    what.add_argument("--opt", choices=tm.optim.RULES, help="the update rule; default: sgd")
    what.add_argument("--activation", choices=("relu", "tanh", "sigmoid"), help="default: tanh for lenet, else relu")
    what.add_argument("--recipe", metavar="NAME", help=f"a named experiment; other options change it:\n{NAMES}")
    what.add_argument("--list-recipes", action="store_true", help="say what each recipe reproduces, and end")
    how = p.add_argument_group("how to train it")
    how.add_argument(
        "--epochs", type=int, metavar="N", help="default: softmax 5, dropout-cnn 8, else 10; 20 on the embedded digits"
    )
    how.add_argument("--batch-size", type=int, metavar="N", help="default: 64 for softmax and dropout-cnn, else 100")
    how.add_argument(
        "--lr", type=float, metavar="X", help="learning rate; default: one that suits model and rule, see below"
    )
    how.add_argument("--momentum", type=float, metavar="X", help="of momentum; default: 0.9")
    how.add_argument(
        "--rho", type=float, metavar="X", help="decay of rmsprop (0.9) and adadelta (0.95; softmax 0.9999)"
    )
    how.add_argument("--eps", type=float, metavar="X", help="adagrad 1e-7, rmsprop 1e-8, adadelta 1e-5 (lenet 1e-6)")
    how.add_argument(
        "--lr-decay", type=float, metavar="X", help="factor on the learning rate after every epoch; default: 1"
    )
    how.add_argument("--seed", type=int, metavar="N", help="of weights, order and dropout; default: 0")
    how.add_argument("--device", metavar="LIST", help="cpu, gpu, gpu:1, cpu:0,cpu:1 or auto; default: cpu")
    how.add_argument(
        "--kvstore",
        choices=("local", "dist_sync"),
        help="what sums gradients: this process, or MXNet's servers over machines, as scripts/launch.py\n"
        "starts them; default: local",
    )
    how.add_argument(
        "--timeout", type=float, metavar="S", help="of dist_sync: seconds until another is taken for gone; default: 60"
    )
    how.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="replay steps as static graphs (default), or not"
    )
    data = p.add_argument_group("on what data")
    data.add_argument(
        "--data",
        metavar="NAME",
        help="mnist, fashion-mnist, digits or a directory with the four IDX files;\n"
        "default: $TINYMNIST_DATA, else mnist, else the embedded digits",
    )
    data.add_argument("--limit", type=int, metavar="N", help="use the first N training images only")
    data.add_argument(
        "--hold-out", type=int, metavar="N", help="test on the last N training images instead, to choose settings by"
    )
    data.add_argument("--normalize", action="store_true", default=None, help="pixels to mean 0 and deviation 1")
    data.add_argument(
        "--augment", action="store_true", default=None, help="shift, turn and scale training images anew every epoch"
    )
    out = p.add_argument_group("what is kept and shown")
    out.add_argument("--save", metavar="DIR", help="where the run is saved; default: a new directory in runs/")
    out.add_argument(
        "--save-every", type=int, metavar="N", default=0, help="save every N batches too, not only after epochs"
    )
    out.add_argument("--resume", metavar="DIR", help="go on with the run saved there; --epochs may be more than before")
    out.add_argument("--log-interval", type=int, metavar="N", help="print loss and images/s every N batches")
    out.add_argument("--show", action="store_true", help="open the picture of the curves at the end")
    out.add_argument("--quiet", action="store_true", help="print the last line only")
    lines = [
        f"  {m:12} " + "  ".join(f"{r} {hyper(m, r)['lr']:g}" for r in tm.optim.RULES if "lr" in hyper(m, r))
        for m in tm.models.MODELS
    ]
    p.epilog = "learning rates:\n" + "\n".join(lines)
    return p


def configured(args):
    """The model, the rule and the settings that the options ask for: a recipe's, a model's, and those given by hand."""
    if args.recipe is not None and args.recipe not in RECIPES:
        raise ValueError(f"there is no recipe {args.recipe!r}; the recipes are {NAMES}")
    recipe = RECIPES.get(args.recipe)
    name = args.model or (recipe.model if recipe else "softmax")
    rule = args.opt or (recipe.rule if recipe else "sgd")
    arguments = dict(recipe.arguments) if recipe and name == recipe.model else {}
    if args.activation:
        if name == "softmax":
            raise ValueError("softmax regression has no activation; take --model mlp, lenet or dropout-cnn")
        arguments["activation"] = args.activation
    values = dict(recipe.hyper) if recipe and rule == recipe.rule else hyper(name, rule)
    values.update(given(args, "lr", "momentum", "rho", "eps"))
    settings = dict(recipe.settings) if recipe else dict(SETTINGS.get(name, {}))
    return tm.models.MODELS[name], arguments, tm.Optimizer(rule, **values), {**settings, **changes(args)}


def given(args, *names):
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def changes(args):
    """The settings that were given by hand."""
    return given(args, *(field.name for field in dataclasses.fields(tm.Settings)))


class Console:
    """A progress bar while an epoch runs, a line after it."""

    def __init__(self, run, args):
        from tqdm import tqdm

        self.args = args
        total, done = len(run.train_split.labels), run.batch * run.settings.batch_size
        look = {"unit": " images", "unit_scale": True, "dynamic_ncols": True, "leave": False}
        hidden = True if args.quiet else None  # None: where stderr is no terminal
        self.bar = tqdm(total=total, initial=done, disable=hidden, **look)

    def on_batch(self, run, examples):
        if self.bar.n >= self.bar.total:
            self.bar.reset()
            self.bar.initial = 0
        self.bar.set_description(f"epoch {run.epoch + 1}/{run.settings.epochs}", refresh=False)
        if run.seen and run.batch % run.settings.log_interval == 0:
            self.bar.set_postfix_str(f"loss {run.seen[-1][1]:.4f}", refresh=False)
            if self.args.log_interval and not self.args.quiet:
                figures = f"loss {run.seen[-1][1]:.4f}, {run.speed[-1]:,.0f} images/s"
                self.bar.write(f"      epoch {run.epoch + 1} batch {run.batch:5}: {figures}", file=sys.stdout)
        self.bar.update(examples)

    def on_epoch(self, run):
        if not self.args.quiet:
            self.bar.write(line(run.history[-1], len(run.train_split.labels)), file=sys.stdout)


def line(e, n):
    rate = "       –" if e.lr is None else f"{e.lr:8.4g}"
    return (
        f"{e.epoch:5} {e.loss:8.4f} {e.train_accuracy:10.4f} {e.test_loss:10.4f} {e.test_accuracy:9.4f}  {rate} "
        f"{n / max(e.seconds, 1e-3):10,.0f} {e.seconds:8.2f}"
    )


class Signals:
    """Ctrl-C and SIGTERM end a run where it can go on, the process where no run is under way; a second one, at once."""

    run = number = None

    def __enter__(self):
        numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
        self.before = {number: signal.signal(number, self.caught) for number in numbers}
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def caught(self, number, frame):
        for each in self.before:
            signal.signal(each, signal.SIG_DFL)
        self.number = number
        if self.run is None:
            raise SystemExit(128 + number)
        self.run.stop = True


def train(run, args, directory, signals, then=0):
    """Trains to the end, or to a signal; returns the exit status."""
    console = Console(run, args)
    signals.run = run
    try:
        run.train(on_batch=console.on_batch, on_epoch=console.on_epoch, save=directory, save_every=args.save_every)
    finally:
        signals.run = None
        console.bar.close()
    number = signals.number or (signal.SIGTERM if run.stopping else None)  # or another worker was told to stop
    if number is None:
        return 0
    where = f"in epoch {run.epoch + 1} after {run.batch} batches" if run.batch else f"after {run.epoch} epochs"
    more = f" --epochs {run.settings.epochs + then}" if then else ""
    print(f"stopped {where}; go on with: python scripts/train.py --resume {shlex.quote(str(directory))}{more}")
    return 128 + number


def report(run, directory, untrained=None, show=False):
    """The last line, and a picture of the curves beside the checkpoint."""
    from tinymnist.experiments import figures

    last = run.history[-1]
    title = f"{run.model.name} by {run.optimizer.name} on {Path(run.data.name).name}, seed {run.settings.seed}"
    picture, shows = Path(directory) / "curves.png", " (curves.png shows the curves)"
    try:
        figures.draw_curves(run.history, len(run.train_split.labels), title, picture, untrained)
    except (ImportError, tm.DataError) as error:
        shows = ""
        print(f"the curves cannot be drawn: {error}", file=sys.stderr)
    print(f"test accuracy {last.test_accuracy:.4f} after {last.epoch} epochs; saved in {directory}{shows}")
    if show and shows:
        figures.open_figure(picture)


def without_held_out(data, args):
    return data if args.hold_out is None else recipes.held_out(data, args.hold_out)


def begin(args):
    if args.resume is not None:
        for name in ("model", "opt", "activation", "recipe", "save", "lr", "momentum", "rho", "eps"):
            if getattr(args, name) is not None:
                raise ValueError(f"--{name} cannot be given with --resume: the saved run has its own")
        state = tm.checkpoint.newest(args.resume)[0]  # what it was begun on
        data = tm.load(args.data or state["where"])
        if args.hold_out is None:
            args.hold_out = max(0, len(data.train.labels) - state["examples"]) or None
        run = tm.resume(args.resume, without_held_out(data, args), **changes(args))
        if run.epoch == run.settings.epochs:
            print(
                f"{args.resume} has ended: --epochs says how many it shall have instead of {run.epoch}", file=sys.stderr
            )
        return run, args.resume, 0
    make, arguments, optimizer, settings = configured(args)
    data = without_held_out(tm.load(args.data), args)
    if "epochs" not in settings or (args.epochs is None and data.name == "digits" and not args.recipe):
        settings["epochs"] = 20 if data.name == "digits" else settings.get("epochs", 10)
    _, height, width = data.train.images.shape
    run = tm.Run(make(image=(1, height, width), **arguments), optimizer, data, tm.Settings(**settings))
    directory = args.save and Path(args.save)
    if run.exchange.rank == 0 and not directory:  # of many workers the first alone saves
        directory = fresh(f"runs/{run.model.name}-{optimizer.name}")
    return run, directory, RECIPES[args.recipe].then if args.recipe and args.epochs is None else 0


def command(args, signals):
    """Does what the options ask for; returns the exit status."""
    if args.list_recipes:
        for name, recipe in RECIPES.items():
            print(f"{name:17} {recipe.title}\n{'':17} published: {recipe.published}")
        return 0
    run, directory, then = begin(args)
    if run.exchange.rank > 0:  # of many workers the first alone prints and draws, as it alone saves
        args.quiet, sys.stdout = True, open(os.devnull, "w")  # noqa: SIM115
    if not args.quiet:
        rule = ", ".join(f"{k} {v:g}" for k, v in run.optimizer.hyper.items())
        size, seed = f"{run.model.size:,} parameters", f"seed {run.settings.seed}"
        print(f"{run.model.name} ({size}) by {run.optimizer.name} ({rule}), {seed}")
        print(run.data.source)
        print(HEADER)
    untrained = None
    if args.recipe and RECIPES[args.recipe].untrained:
        untrained = tm.evaluate(run.model, run.data.test)
        if not args.quiet:
            print(f"    0        –          – {untrained[0]:10.4f} {untrained[1]:9.4f}")
    status = train(run, args, directory, signals, then)
    if not status and then:
        if not args.quiet:
            print(f"going on from {directory} for {then} more epochs")
        run = tm.resume(directory, run.data, epochs=run.epoch + then, kvstore=run.settings.kvstore)
        status = train(run, args, directory, signals)
    if run.history and not status and run.exchange.rank == 0:
        report(run, directory, untrained, args.show)
    return status


def main(argv=None):
    try:
        with Signals() as signals:
            status = command(parser().parse_args(argv), signals)
            sys.stdout.flush()
            return status
    except SystemExit as end:  # argparse has said why; a signal has not
        if end.code and end.code > 128:
            print("stopped while no run was under way", file=sys.stderr)
        return end.code
    except tm.Diverged as error:
        return failed(1, error)
    except (tm.DataError, ValueError, ImportError) as error:
        return failed(2, error)
    except (MemoryError, mx.MXNetError) as error:
        return failed(1, str(error).strip().splitlines()[-1] if str(error) else "out of memory")
    except OSError as error:  # files have a DataError: it is what was printed that cannot be written
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would try once more at its end
        return failed(2, f"standard output cannot be written: {error.strerror or error}")


def failed(status, sentence):
    print(sentence, file=sys.stderr)
    return machines.failed(status)


if __name__ == "__main__":
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stdout.reconfigure(errors="replace")  # a terminal that has no –
    sys.exit(main())
