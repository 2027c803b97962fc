"""Train recipes with several seeds, and draw accuracy against time: python docs/records.py fast lenet --seeds 3

Each run is a process of its own, scripts/train.py. Its time counts from the start of the process to the line with the
accuracy, imports and loading of the data included. Runs are saved in runs/.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tinymnist.experiments import figures
from tinymnist.runtime.progress import HEADER

ROOT = Path(__file__).resolve().parents[1]


def run(recipe, seed, options):
    """Train once. Returns rows [seconds since the start, seconds of training, test accuracy in %], one for each epoch.

    The first row is the beginning of the training; its accuracy is NaN.
    """
    command = [sys.executable, "-u", ROOT / "scripts" / "train.py", "--recipe", recipe, "--seed", str(seed), *options]
    began, rows = time.perf_counter(), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            seconds, words = time.perf_counter() - began, line.split()
            if line.strip() == HEADER:
                rows.append([seconds, 0, np.nan])
            elif rows and words[0].isdigit():
                rows.append([seconds, rows[-1][1] + float(words[-1]), 100 * float(words[4])])
    if process.returncode:
        raise SystemExit(process.returncode)
    return np.array(rows)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    p.add_argument("recipes", nargs="+", metavar="RECIPE", help="recipes of train.py --list-recipes")
    p.add_argument("--seeds", type=int, default=3, metavar="N", help="train with the seeds 0 to N − 1; default: 3")
    p.add_argument("--plot", metavar="FILE", help="draw accuracy against seconds, the mean over the seeds")
    args, options = p.parse_known_args()  # other options go to train.py
    figure, axes = figures.new_figure(7, 4, "test accuracy from the start of the process, mean over seeds")
    for recipe in args.recipes:
        runs = []
        for seed in range(args.seeds):
            runs.append(run(recipe, seed, options))
            print(f"{recipe} seed {seed}: {runs[-1][-1, 2]:.2f} % after {runs[-1][-1, 0]:.2f} s", flush=True)
        runs = np.array(runs)
        start, (seconds, training, accuracy) = runs[:, 0, 0], runs[:, -1].T
        spread = accuracy.std(ddof=1) if args.seeds > 1 else 0
        parts = {"start": start, "training": training, "rest": seconds - start - training}
        parts = ", ".join(f"{name} {values.mean():.2f}" for name, values in parts.items())
        print(f"{recipe}: {accuracy.mean():.3f} ± {spread:.3f} %, {accuracy.min():.2f} to {accuracy.max():.2f}")
        print(f"{recipe}: {seconds.mean():.2f} s, {seconds.min():.2f} to {seconds.max():.2f}; on average {parts}")
        axes.plot(runs[:, 1:, 0].mean(0), runs[:, 1:, 2].mean(0), "o-", ms=4, label=recipe)
    axes.set(xlabel="seconds", ylabel="test accuracy, %", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    if args.plot:
        print(figures.save_figure(figure, args.plot))


if __name__ == "__main__":
    main()
