"""Compares update rules on one model: python scripts/compare.py --rules sgd:lr=0.1 adagrad:lr=0.9,eps=1e-7"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

import tinymnist as tm
from tinymnist.backend import mx
from tinymnist.experiments import figures as plot
from tinymnist.experiments import recipes
from tinymnist.runtime.files import fresh, locked, replacing


def parser():
    p = argparse.ArgumentParser(description="Train one model by several update rules and compare their accuracies.")
    what = "RULE or RULE:NAME=X,NAME=X, such as momentum:lr=0.2,momentum=0.9; a rule may come twice"
    p.add_argument(
        "--rules", nargs="+", metavar="RULE", default=list(tm.optim.RULES), help=f"{what}; default: all five"
    )
    p.add_argument("--model", choices=tm.models.MODELS, default="softmax", help="default: softmax")
    p.add_argument("--activation", choices=("relu", "tanh", "sigmoid"), help="default: tanh for lenet, else relu")
    p.add_argument("--seeds", type=int, metavar="N", default=1, help="train with seeds 0 to N - 1; default: 1")
    p.add_argument("--epochs", type=int, metavar="N", default=5, help="default: 5")
    p.add_argument("--batch-size", type=int, metavar="N", help="default: 64 for softmax and dropout-cnn, else 100")
    p.add_argument("--normalize", action="store_true", help="pixels to mean 0 and deviation 1")
    p.add_argument("--data", metavar="NAME", help="as in scripts/train.py")
    p.add_argument("--limit", type=int, metavar="N", help="use the first N training images only")
    p.add_argument("--hold-out", type=int, metavar="N", help="test on the last N training images instead")
    p.add_argument("--device", metavar="LIST", default="cpu", help="as in scripts/train.py; default: cpu")
    p.add_argument("--save", metavar="DIR", help="where compare.json and compare.png go; default: a new one in runs/")
    p.add_argument("--show", action="store_true", help="open the figure at the end")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def named(text, model):
    """ "adagrad:lr=0.9,eps=1e-7" -> ("adagrad", {"lr": 0.9, "eps": 1e-7}); what suits the model where none is given"""
    rule, *rest = text.split(":", 1)
    values = recipes.hyper(model, rule)
    for part in rest[0].split(",") if rest else []:
        name, _, number = part.partition("=")
        try:
            values[name.strip()] = float(number)
        except ValueError:
            raise ValueError(f"{text!r}: {part!r} is not NAME=NUMBER; an example is adagrad:lr=0.9,eps=1e-7") from None
    return rule, tm.Optimizer(rule, **values).hyper


def label(rule, hyper):
    shown = {k: v for k, v in hyper.items() if k != "eps" or v != tm.optim.hyperparameters(rule)["eps"]}
    return ", ".join([rule, *(f"{k} {v:g}" for k, v in shown.items())])


def measure(args, rule, hyper, data, seed, bar):
    """Trains once -> accuracies after every epoch in %, measured on the whole training set and on the test set."""
    make, (_, height, width) = tm.models.MODELS[args.model], data.train.images.shape
    options = {"activation": args.activation} if args.activation else {}
    batch_size = args.batch_size or recipes.SETTINGS.get(args.model, {}).get("batch_size", 100)
    settings = tm.Settings(
        **{"epochs": args.epochs, "batch_size": batch_size, "device": args.device, "seed": seed},
        **{"normalize": args.normalize, "limit": args.limit},
    )
    run = tm.Run(make(image=(1, height, width), **options), tm.Optimizer(rule, **hyper), data, settings)
    result = {"seed": seed, "training": [], "test": [], "seconds": 0.0}
    bar.set_description(f"{rule}, seed {seed}")

    def on_epoch(run):
        epoch = run.history[-1]
        result["training"].append(round(100 * tm.evaluate(run.model, run.train_split)[1], 4))
        result["test"].append(round(100 * epoch.test_accuracy, 4))
        result["seconds"] = round(result["seconds"] + epoch.seconds, 3)

    run.train(on_batch=lambda run, examples: bar.update(examples), on_epoch=on_epoch)
    return result


def table(results):
    """A line per rule and epoch: what was published beside the mean over seeds and its standard deviation."""
    print(f"{'':37} {'training accuracy, %':>27}   {'test accuracy, %':>27}")
    print(f"{'rule':31} epoch {'published':>12} {'measured':>14}   {'published':>12} {'measured':>14}")
    for result in results:
        columns = [np.array([run[which] for run in result["runs"]]) for which in ("training", "test")]
        for epoch in range(columns[0].shape[1]):
            said = result["published"][epoch] if epoch < len(result["published"]) else (None, None)
            said = ["–" if p is None else f"{p:.2f}" for p in said]
            cells = [f"{p:>12} {spread(values[:, epoch]):>14}" for p, values in zip(said, columns)]
            print(f"{'' if epoch else result['label']:31} {epoch + 1:5} {'   '.join(cells)}")


def spread(values):
    return f"{values.mean():.2f}" + (f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else "")


def compare(args):
    if args.seeds < 1 or args.epochs < 1:
        raise ValueError("--seeds and --epochs are whole numbers from 1 on")
    if args.activation and args.model == "softmax":
        raise ValueError("softmax regression has no activation; take --model mlp, lenet or dropout-cnn")
    if args.batch_size is not None and args.batch_size < 1:
        raise ValueError(f"--batch-size is a whole number from 1 on, not {args.batch_size}")
    rules = [named(text, args.model) for text in args.rules]
    data = tm.load(args.data)
    if args.hold_out is not None:
        data = recipes.held_out(data, args.hold_out)
    print(f"{args.model}, {args.epochs} epochs, {'seed 0' if args.seeds == 1 else f'seeds 0 to {args.seeds - 1}'}")
    print(data.source, flush=True)
    directory = Path(args.save) if args.save else fresh(f"runs/compare-{args.model}")
    with locked(directory):
        return compare_into(directory, args, rules, data)


def compare_into(directory, args, rules, data):
    """Trains by every rule, and writes what is known after each; returns the exit status: 1 where a rule diverged."""
    from tqdm import tqdm

    total, results, status = len(rules) * args.seeds * args.epochs * len(data.train.labels[: args.limit]), [], 0
    about = {"model": args.model, "data": data.source, "fingerprint": data.fingerprint, "arguments": vars(args)}
    as_published = not (args.normalize or args.limit or args.hold_out or args.batch_size)
    hidden = True if args.quiet else None  # None: where stderr is no terminal
    with tqdm(total=total, disable=hidden, leave=False, unit=" images", unit_scale=True, dynamic_ncols=True) as bar:
        for rule, hyper in rules:
            try:
                runs = [measure(args, rule, hyper, data, seed, bar) for seed in range(args.seeds)]
            except tm.Diverged as error:
                status = 1
                bar.write(f"{label(rule, hyper)}: {error}", file=sys.stderr)
                continue
            published = recipes.published(args.model, rule, hyper, data) if as_published else []
            results.append(
                {"label": label(rule, hyper), "rule": rule, "hyper": hyper, "published": published, "runs": runs}
            )
            with replacing(directory / "compare.json") as stream:
                stream.write(json.dumps({**about, "results": results}, indent=1).encode())
    if results:
        lines = [
            (r["label"], r["rule"], *([run[w] for run in r["runs"]] for w in ("training", "test"))) for r in results
        ]
        over = "one seed" if args.seeds == 1 else f"means of {args.seeds} seeds, shaded from the lowest to the highest"
        title = f"{args.model} on {Path(data.name).name}: {over}"
        picture = plot.comparison(lines, title, directory / "compare.png")
        table(results)
        print(f"saved in {directory}: compare.json, compare.png", flush=True)
        if args.show:
            plot.show(picture)
    return status


def main(argv=None):
    try:
        return compare(parser().parse_args(argv))
    except SystemExit as end:  # argparse has said why
        return end.code
    except KeyboardInterrupt:
        print("stopped; compare.json has what was finished", file=sys.stderr)
        return 128 + signal.SIGINT
    except (MemoryError, mx.MXNetError) as error:
        print(str(error).strip().splitlines()[-1] if str(error) else "out of memory", file=sys.stderr)
        return 1
    except (tm.DataError, ValueError, ImportError, OSError) as error:
        print(f"{error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stdout.reconfigure(errors="replace")  # a terminal that has no ±
    sys.exit(main())
