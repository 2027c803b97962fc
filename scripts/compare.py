"""Compare update rules on one model: python scripts/compare.py --rules sgd:lr=0.1 adagrad:lr=0.9,eps=1e-7"""

import cli  # isort: skip

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

import tinymnist as tm
from tinymnist.experiments import figures, recipes
from tinymnist.experiments.evaluation import measure_accuracies
from tinymnist.idx import replace_file
from tinymnist.runtime.files import lock_directory, new_run_directory
from tinymnist.runtime.progress import make_bar


def make_parser():
    p = cli.Parser(description="Train one model with several update rules and compare their accuracies.")
    add = p.add_argument
    rules = "NAME or NAME:OPTION=X,OPTION=X, such as momentum:lr=0.2,momentum=0.9; a rule may appear twice"
    add("--rules", nargs="+", metavar="RULE", default=[*tm.optim.RULES], help=f"{rules}; default: all five")
    add("--model", choices=tm.models.MODELS, default="softmax", help="default: softmax, with its published settings")
    add("--activation", choices=("relu", "tanh", "sigmoid"), help="default: tanh for lenet, else relu")
    add("--seeds", type=int, metavar="N", default=1, help="train with the seeds 0 to N - 1; default: 1")
    add("--epochs", type=int, metavar="N", default=5, help="default: 5")
    add("--batch-size", type=int, metavar="N", help="default: 64 for softmax and dropout-cnn, else 100")
    add("--normalize", action="store_true", help="shift and scale pixels to mean 0 and standard deviation 1")
    add("--data", metavar="NAME", help="as for scripts/train.py, with the same default")
    add("--limit", type=int, metavar="N", help="train on the first N training images only; default: all")
    add("--hold-out", type=int, metavar="N", help="test on the last N training images, not on the test set")
    add("--device", metavar="LIST", default="cpu", help="as for scripts/train.py; default: cpu")
    add("--save", metavar="DIR", help="save compare.json and compare.png in DIR; default: a new one in runs/")
    add("--show", action="store_true", help="open the figure at the end")
    add("--quiet", action="store_true", help="show no progress bar")
    return p


def parse_rule(text, model):
    """An Optimizer from a text such as "adagrad:lr=0.9,eps=1e-7". The defaults of softmax are the published ones."""
    name, _, options = text.partition(":")
    defaults = recipes.FIVE_RULES_HYPER if model == "softmax" else recipes.HYPER[model]
    hyper = dict(defaults.get(name, {}))
    for option in options.split(",") if options else []:
        key, _, number = option.partition("=")
        try:
            hyper[key.strip()] = float(number)
        except ValueError:
            raise ValueError(f"{text!r}: {option!r} is not NAME=NUMBER, for example sgd:lr=0.1") from None
    return tm.Optimizer(name, **hyper)


def compare(args):
    """Do what the options say. Returns the exit status: 1 if a rule diverged."""
    if args.seeds < 1 or args.epochs < 1:
        raise ValueError(f"--seeds and --epochs must be at least 1, not {args.seeds} and {args.epochs}")
    arguments = recipes.make_arguments(args.model, {"activation": args.activation} if args.activation else {})
    arguments.update(recipes.FIVE_RULES_INIT if args.model == "softmax" else {})
    settings = {**recipes.SETTINGS.get(args.model, {}), "epochs": args.epochs, "device": args.device}
    if args.batch_size is not None:
        settings["batch_size"] = args.batch_size
    settings = tm.Settings(**settings, normalize=args.normalize, limit=args.limit)
    rules = [parse_rule(text, args.model) for text in args.rules]
    data = tm.load(args.data)
    if args.hold_out is not None:
        data = recipes.hold_out(data, args.hold_out)
    seeds = "seed 0" if args.seeds == 1 else f"seeds 0 to {args.seeds - 1}"
    print(f"model {args.model}, epochs {args.epochs}, {seeds}\n{data.source}", flush=True)
    directory = Path(args.save) if args.save else new_run_directory(f"runs/compare-{args.model}")
    with lock_directory(directory) as check:
        results = train_all(args, rules, data, arguments, settings, directory, check)
        if results:
            print_table(results)
            title = f"{args.model} on {Path(data.name).name}, {seeds}" + (": mean and range" if args.seeds > 1 else "")
            picture = figures.draw_comparison(results, title, directory / "compare.png")
            print(f"saved in {directory}: compare.json, compare.png", flush=True)
            if args.show:
                figures.open_figure(picture)
    return 0 if len(results) == len(rules) else 1


def train_all(args, rules, data, arguments, settings, directory, check):
    """Train with every rule and seed, and write compare.json after each rule. Leaves out rules that diverge."""
    arguments = {**arguments, "image": (1, *data.train.images.shape[1:])}
    about = {"model": args.model, "data": data.source, "fingerprint": data.fingerprint, "arguments": vars(args)}
    as_published = not (args.normalize or args.limit or args.hold_out or args.batch_size)
    total, results = len(rules) * args.seeds * args.epochs * len(data.train.labels[: args.limit]), []
    with make_bar(total, disable=True if args.quiet else None) as bar:
        for rule in rules:
            name, hyper, runs = rule.name, rule.hyper, []
            try:
                for seed in range(args.seeds):
                    bar.set_description_str(f"{name}, seed {seed}")
                    model, optimizer = tm.models.MODELS[args.model](**arguments), tm.Optimizer(name, **hyper)
                    run = tm.Run(model, optimizer, data, dataclasses.replace(settings, seed=seed))
                    measured = measure_accuracies(run, on_batch=lambda run, examples: bar.update(examples))
                    runs.append({"seed": seed, **measured})
            except tm.Diverged as error:
                bar.write(f"{rule}: {error}", file=sys.stderr)
                continue
            published = recipes.published_accuracies(args.model, name, hyper, data) if as_published else []
            results.append({"label": str(rule), "rule": name, "hyper": hyper, "published": published, "runs": runs})
            check()
            with replace_file(directory / "compare.json") as stream:
                stream.write(json.dumps({**about, "results": results}, indent=1).encode())
    return results


def print_table(results):
    """For each rule and epoch the published accuracy, and the mean and standard deviation over the seeds."""
    print(f"{'training accuracy, %':>34}{'test accuracy, %':>34}")
    print("epoch" + 2 * f"{'published':>14}{'measured':>15}     ".rstrip())
    for result in results:
        print(result["label"])
        training, test = (np.array([run[which] for run in result["runs"]]).T for which in ("training", "test"))
        for epoch, measured in enumerate(zip(training, test)):
            published = result["published"][epoch] if epoch < len(result["published"]) else (None, None)
            cells = [f"{format_mean([p]):>14}{format_mean(m):>15}" for p, m in zip(published, measured)]
            print(f"{epoch + 1:5}{'     '.join(cells)}")


def format_mean(values):
    """The mean, with the standard deviation if there are several values; a dash for a value that does not exist."""
    if values[0] is None:
        return "–"
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else "")


def main(argv=None):
    interrupted = "stopped; compare.json has the rules that were finished"
    return cli.run(lambda _: compare(make_parser().parse_args(argv)), interrupted=interrupted)


if __name__ == "__main__":
    cli.start(main)
