"""Times tinymnist beside Gluon and PyTorch, in turn, in one run: python scripts/bench.py --rounds 7

Every contender trains the same weights on the same batches of the same data in a process of its own, so that its peak
memory is its own too; the processes take turns, and a ratio is the median over rounds of two times side by side. Each
runs with every number of threads that --threads names (as OMP_NUM_THREADS), and the number that suits it best counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np

HYPER = {
    "sgd": {"lr": 0.1},
    "momentum": {"lr": 0.1, "momentum": 0.9},
    "adagrad": {"lr": 0.1},
    "rmsprop": {"lr": 0.001, "rho": 0.9},
    "adadelta": {"rho": 0.9},
}
STEPS = {  # workload: (model, its arguments, rule, batch size)
    **{f"softmax {rule}": ("softmax", {}, rule, 64) for rule in HYPER},
    "mlp sgd": ("mlp", {}, "sgd", 100),
    "lenet tanh sgd": ("lenet", {"activation": "tanh"}, "sgd", 100),
    "lenet relu sgd": ("lenet", {"activation": "relu"}, "sgd", 100),
    "dropout-cnn momentum": ("dropout-cnn", {}, "momentum", 64),
}
OTHERS = {"predict 10,000 lenet": "lenet", "load to first batch": "softmax", "epoch from the loader": "softmax"}
WORKLOADS = [*STEPS, *OTHERS]
CONTENDERS = {
    "tinymnist": "tinymnist",
    "tinymnist --no-compile": "plain",
    "Gluon": "gluon",
    "Gluon hybridized": "hybrid",
    "PyTorch": "torch",
}
FILES = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
LEFT_OUT = {("load to first batch", who) for who in ("plain", "hybrid", "torch")} | {("epoch from the loader", "torch")}


def tinymnist(workload, data, compile):
    import tinymnist as tm
    from tinymnist.backend import nd
    from tinymnist.batches import Batches
    from tinymnist.datasets.load import Split
    from tinymnist.runtime.step import Replica

    if workload == "load to first batch":

        def load():
            next(iter(Batches(tm.load(data).train, 64, tm.runtime.devices.named("cpu")[0])))[0].wait_to_read()

        return load
    name, arguments, rule, size = STEPS.get(workload) or (OTHERS[workload], {}, "sgd", 64)
    model = tm.models.MODELS[name](**arguments).initialize(0)
    loaded = tm.load(data)
    if workload.startswith("predict"):
        return lambda: tm.predict(model, loaded.test.images, compile=compile)
    split = loaded.train if workload.startswith("epoch") else Split(*(array[:size] for array in loaded.train))
    replica = Replica(model, tm.Optimizer(rule, **HYPER[rule]), split, size, compile=compile)

    def step(batch):
        replica.gradient(batch, len(batch[1]))
        replica.update(replica.optimizer.hyper)

    if workload.startswith("epoch"):
        epochs = iter(range(10**6))

        def epoch():
            for batch in replica.batches.epoch(tm.batches.permutation(0, next(epochs), len(split.labels))):
                step(batch)
            nd.waitall()

        return epoch
    batch = next(iter(replica.batches))
    return lambda: step(batch)


def gluon(workload, data, hybrid):
    from tinymnist.backend import autograd, mx, nd

    g, nn = mx.gluon, mx.gluon.nn
    # The same data, compressed again, is as good, and nothing is downloaded for a benchmark.
    g.data.vision.datasets.check_sha1 = g.utils.check_sha1 = lambda *_: True
    if workload == "load to first batch":

        def load():
            first = g.data.DataLoader(g.data.vision.MNIST(data, train=True), 64)
            next(iter(first))[0].wait_to_read()

        return load
    name, arguments, rule, size = STEPS.get(workload) or (OTHERS[workload], {}, "sgd", 64)
    act = arguments.get("activation", "tanh")
    net = nn.HybridSequential()
    net.add(
        *{
            "softmax": lambda: [nn.Dense(10)],
            "mlp": lambda: [nn.Dense(128, activation="relu"), nn.Dense(64, activation="relu"), nn.Dense(10)],
            "lenet": lambda: (
                [nn.Conv2D(20, 5, activation=act), nn.MaxPool2D(2), nn.Conv2D(50, 5, activation=act), nn.MaxPool2D(2)]
                + [nn.Dense(500, activation=act), nn.Dense(10)]
            ),
            "dropout-cnn": lambda: (
                [nn.Conv2D(10, 5), nn.MaxPool2D(2), nn.Activation("relu"), nn.Conv2D(20, 5)]
                + [
                    nn.Dropout(0.5, axes=(2, 3)),
                    nn.MaxPool2D(2),
                    nn.Activation("relu"),
                    nn.Dense(50, activation="relu"),
                ]
                + [nn.Dropout(0.5), nn.Dense(10)]
            ),
        }[name]()
    )
    net.initialize()
    net(nd.zeros((1, 1, 28, 28)))
    for own, value in zip(net.collect_params().values(), weights(name, arguments)):
        own.set_data(nd.array(value))
    criterion = g.loss.SoftmaxCrossEntropyLoss()
    if hybrid:
        net.hybridize(static_alloc=True, static_shape=True)
        criterion.hybridize(static_alloc=True, static_shape=True)
    h = HYPER[rule]
    trainer = g.Trainer(
        net.collect_params(),
        *{
            "sgd": ("sgd", {"learning_rate": h.get("lr")}),
            "momentum": ("sgd", {"learning_rate": h.get("lr"), "momentum": h.get("momentum")}),
            "adagrad": ("adagrad", {"learning_rate": h.get("lr")}),
            "rmsprop": ("rmsprop", {"learning_rate": h.get("lr"), "gamma1": h.get("rho")}),
            "adadelta": ("adadelta", {"rho": h.get("rho")}),
        }[rule],
    )

    def step(x, y):
        with autograd.record():
            value = criterion(net(x), y)
        value.backward()
        trainer.step(len(y))

    train = g.data.vision.MNIST(data, train=True)
    if workload.startswith("predict"):
        images = np.stack([image.asnumpy() for image, _ in g.data.vision.MNIST(data, train=False)])[..., 0]

        def predict():
            x = nd.array(images, dtype="uint8").expand_dims(1)
            return np.concatenate(
                [nd.softmax(net(x[i : i + 200].astype("float32") / 255)).asnumpy() for i in range(0, 10000, 200)]
            )

        return predict
    if workload.startswith("epoch"):
        loader = g.data.DataLoader(train.transform_first(g.data.vision.transforms.ToTensor()), size, shuffle=True)

        def epoch():
            for x, y in loader:
                step(x, y)
            nd.waitall()

        return epoch
    x, y = train[:size]
    x, y = x.transpose((0, 3, 1, 2)).astype("float32") / 255, nd.array(y)
    return lambda held=train: step(x, y)  # the whole set stays in memory, as tinymnist's does


def pytorch(workload, data):
    import torch
    from torch import nn

    name, arguments, rule, size = STEPS.get(workload) or (OTHERS[workload], {}, "sgd", 64)
    act = {"relu": nn.ReLU, "tanh": nn.Tanh}[arguments.get("activation", "tanh")]
    net = nn.Sequential(
        *{
            "softmax": lambda: [nn.Flatten(), nn.Linear(784, 10)],
            "mlp": lambda: [
                nn.Flatten(),
                nn.Linear(784, 128),
                nn.ReLU(),
                nn.Linear(128, 64),
                nn.ReLU(),
                nn.Linear(64, 10),
            ],
            "lenet": lambda: (
                [nn.Conv2d(1, 20, 5), act(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), act(), nn.MaxPool2d(2)]
                + [nn.Flatten(), nn.Linear(800, 500), act(), nn.Linear(500, 10)]
            ),
            "dropout-cnn": lambda: (
                [nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 20, 5), nn.Dropout2d(0.5)]
                + [
                    nn.MaxPool2d(2),
                    nn.ReLU(),
                    nn.Flatten(),
                    nn.Linear(320, 50),
                    nn.ReLU(),
                    nn.Dropout(0.5),
                    nn.Linear(50, 10),
                ]
            ),
        }[name]()
    )
    with torch.no_grad():
        for own, value in zip(net.parameters(), weights(name, arguments)):
            own.copy_(torch.from_numpy(value))
    h = HYPER[rule]
    optimizer = {
        "sgd": lambda p: torch.optim.SGD(p, h["lr"]),
        "momentum": lambda p: torch.optim.SGD(p, h["lr"], momentum=h["momentum"]),
        "adagrad": lambda p: torch.optim.Adagrad(p, h["lr"]),
        "rmsprop": lambda p: torch.optim.RMSprop(p, h["lr"], alpha=h["rho"]),
        "adadelta": lambda p: torch.optim.Adadelta(p, 1.0, rho=h["rho"]),
    }[rule](net.parameters())
    criterion = nn.CrossEntropyLoss()

    if workload.startswith("predict"):
        images = torch.from_numpy(raw(data, "t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28).copy())

        def predict():
            with torch.no_grad():
                return torch.cat(
                    [net(images[i : i + 200].float() / 255).softmax(1) for i in range(0, 10000, 200)]
                ).numpy()

        return predict
    x, y = (torch.from_numpy(array) for array in batch(data, size))

    def step():
        optimizer.zero_grad()
        criterion(net(x), y).backward()
        optimizer.step()

    return step


def raw(data, name, header):
    import gzip

    with gzip.open(os.path.join(data, name)) as stream:
        return np.frombuffer(stream.read(), np.uint8, offset=header)


def batch(data, size):
    """The first batch of the training set, as floats, for those who do not start from bytes."""
    images = raw(data, "train-images-idx3-ubyte.gz", 16)[: size * 784].reshape(size, 1, 28, 28)
    return images.astype(np.float32) / 255, raw(data, "train-labels-idx1-ubyte.gz", 8)[:size].astype(np.int64)


def weights(name, arguments):
    """The weights that all peers begin with, layer by layer, drawn by numpy: PyTorch's process has no MXNet."""
    shapes = {
        "softmax": [(10, 784)],
        "mlp": [(128, 784), (64, 128), (10, 64)],
        "lenet": [(20, 1, 5, 5), (50, 20, 5, 5), (500, 800), (10, 500)],
        "dropout-cnn": [(10, 1, 5, 5), (20, 10, 5, 5), (50, 320), (10, 50)],
    }[name]
    rng = np.random.default_rng(0)
    for shape in shapes:
        yield rng.uniform(-0.07, 0.07, shape).astype(np.float32)
        yield np.zeros(shape[0], np.float32)


def product_rate():
    """GFLOP/s of a product of two matrices 1024 by 1024."""
    from tinymnist.backend import nd

    a = nd.random.normal(shape=(1024, 1024))
    times = []
    for _ in range(6):
        began = time.perf_counter()
        nd.dot(a, a).wait_to_read()
        times.append(time.perf_counter() - began)
    return 2 * 1024**3 / np.median(times[1:]) / 1e9


def flops(workload):
    """Additions and multiplications in a step's products: each layer's, twice more for gradients (the first, once)."""
    name, _, _, size = STEPS[workload]
    layers = {
        "softmax": [(784, 10)],
        "mlp": [(784, 128), (128, 64), (64, 10)],
        "lenet": [(25, 20 * 576), (500, 50 * 64), (800, 500), (500, 10)],
        "dropout-cnn": [(25, 10 * 576), (250, 20 * 64), (320, 50), (50, 10)],
    }[name]
    return sum(2 * size * a * b * (3 if i else 2) for i, (a, b) in enumerate(layers))


def worker(contender, workload, data):
    """For every line on stdin, a number, runs the workload so many times; answers with seconds each and peak MB."""
    made = {
        "tinymnist": lambda: tinymnist(workload, data, True),
        "plain": lambda: tinymnist(workload, data, False),
        "gluon": lambda: gluon(workload, data, False),
        "hybrid": lambda: gluon(workload, data, True),
        "torch": lambda: pytorch(workload, data),
    }[contender]()
    if contender == "torch":
        wait = time.perf_counter
    else:
        from tinymnist.backend import nd

        wait = nd.waitall
    for line in sys.stdin:
        if line.strip() == "rate":
            print(json.dumps(product_rate()), flush=True)
            continue
        began = time.perf_counter()
        for _ in range(int(line)):
            made()
        wait()
        seconds = (time.perf_counter() - began) / int(line)
        print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]), flush=True)


class Worker:
    """A contender's process, with so many threads."""

    def __init__(self, contender, threads, workload, args):
        python = args.torch_python if contender == "torch" else sys.executable
        command = [python, os.path.abspath(__file__), "--worker", contender, "--only", workload, "--data", args.data]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(command, text=True, env=environment, **pipes)

    def ask(self, line):
        try:
            print(line, file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError) as error:
            raise RuntimeError((self.process.stderr.read().strip() or "it ended").splitlines()[-1]) from error

    def end(self):
        self.process.communicate()


def measure(workload, args, bar):
    """{contender: {"ms": [a time each round], "mb": peak memory, "threads": the number that suits it}}, in turns."""
    present = {title: who for title, who in CONTENDERS.items() if (workload, who) not in LEFT_OUT}
    started = {(title, n): Worker(who, n, workload, args) for title, who in present.items() for n in args.threads}
    workers, results = {}, {}
    for (title, threads), one in started.items():
        try:
            one.ask(1)
            seconds = one.ask(3 if workload in STEPS else 1)[0]
        except RuntimeError as error:
            print(f"{title} is left out of {workload}: {error}", file=sys.stderr)
            continue
        workers[title, threads] = one, max(1, round(args.seconds / seconds))
        results[title, threads] = {"ms": [], "mb": 0.0, "threads": threads}
    ours = [one for (title, _), (one, _) in workers.items() if title == "tinymnist"]
    if not ours:
        raise RuntimeError(f"without tinymnist there is nothing to compare in {workload}")
    rates = []
    for _ in range(args.rounds):
        for key, (one, times) in workers.items():
            seconds, results[key]["mb"] = one.ask(times)
            results[key]["ms"].append(seconds * 1e3)
        if workload in STEPS:
            rates.append(max(one.ask("rate") for one in ours))
        bar.update()
    for one, _ in workers.values():
        one.end()
    best = {}
    for (title, _), result in sorted(results.items(), key=lambda item: np.median(item[1]["ms"])):
        best.setdefault(title, result)
    rate = float(np.median(rates)) if rates else None
    if rate:
        best["tinymnist"]["share of product rate"] = flops(workload) / np.median(best["tinymnist"]["ms"]) / 1e6 / rate
    return {"contenders": best, "product GFLOP/s": rate}


def ratio(results, ours, theirs):
    """Median over rounds of ours / theirs, of times that stand side by side; None where one is missing."""
    if ours not in results or theirs not in results:
        return None
    return float(np.median(np.array(results[ours]["ms"]) / np.array(results[theirs]["ms"])))


def table(report):
    print(f"{'ms, median [min – max]':24}" + "".join(f"{title:>26}" for title in CONTENDERS))
    for workload, result in report.items():
        cells = []
        for title in CONTENDERS:
            times = result["contenders"].get(title, {}).get("ms")
            cells.append(f"{np.median(times):.3f} [{min(times):.3f} – {max(times):.3f}]" if times else "–")
        print(f"{workload:24}" + "".join(f"{cell:>26}" for cell in cells))
    titles = ("to Gluon, better of two", "to PyTorch", "--no-compile to Gluon", "share of products", "MB", "MB, Gluon")
    print(f"\n{'ratio of tinymnist':24}" + "".join(f"{title:>{len(title) + 2}}" for title in titles))
    for workload, result in report.items():
        c = result["contenders"]
        peers = [r for r in (ratio(c, "tinymnist", "Gluon"), ratio(c, "tinymnist", "Gluon hybridized")) if r]
        figures = (
            max(peers, default=None),
            ratio(c, "tinymnist", "PyTorch"),
            ratio(c, "tinymnist --no-compile", "Gluon"),
        )
        share = c["tinymnist"].get("share of product rate")
        cells = [*(f"{r:.2f}" if r else "–" for r in figures), f"{share:.0%}" if share else "–"]
        cells += [f"{c[who]['mb']:.0f}" if who in c else "–" for who in ("tinymnist", "Gluon")]
        print(f"{workload:24}" + "".join(f"{cell:>{len(title) + 2}}" for title, cell in zip(titles, cells)))


def chart(report, path):
    """Bars: each contender's time over tinymnist's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.55 * len(report) + 1.5), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(CONTENDERS)
    for i, title in enumerate(CONTENDERS):
        rows = [(y, ratio(r["contenders"], title, "tinymnist")) for y, r in enumerate(report.values())]
        rows = [(y, value) for y, value in rows if value]
        axes.barh([y + (i - 2) * height for y, _ in rows], [value for _, value in rows], height, label=title)
    axes.set(yticks=range(len(report)), xscale="log", xlabel="time, tinymnist = 1 (logarithmic; longer is slower)")
    axes.set_yticklabels(report)
    axes.set_xticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
    axes.invert_yaxis()
    axes.axvline(1, color="black", lw=0.8)
    axes.legend(fontsize=8)
    axes.set_title("One training step (or the whole of the named work), medians of rounds side by side")
    figure.savefig(path, dpi=100)


def pixels(rounds):
    """Prints nanoseconds an output pixel, forward and backward, for images of 28 to 224 pixels a side."""
    from tinymnist import ops
    from tinymnist.backend import autograd, nd
    from tinymnist.runtime.graph import Replay

    print("conv2d, forward and backward: ns an output pixel at 28, 56, 112, 224 pixels a side; largest over smallest")
    for channels, filters, kernel, n in ((1, 20, 5, 32), (8, 16, 5, 16), (16, 16, 3, 16)):
        weight, bias = nd.random.normal(shape=(filters, channels, kernel, kernel)), nd.zeros((filters,))
        for array in (weight, bias):
            array.attach_grad()
        costs = []
        for side in (28, 56, 112, 224):
            x = nd.random.normal(shape=(n, channels, side, side))
            replay = Replay(lambda x, w=weight, b=bias: [ops.conv2d(x, w, b).mean()], [weight, bias])
            times = []
            for _ in range(rounds + 2):
                began = time.perf_counter()
                with autograd.record():
                    y = replay(x)[0]
                y.backward()
                nd.waitall()
                times.append(time.perf_counter() - began)
            costs.append(np.median(times[2:]) / (n * (side - kernel + 1) ** 2) * 1e9)
        figures = "  ".join(f"{cost:7.1f}" for cost in costs)
        print(f"{channels:3} channels, {filters} filters {kernel}×{kernel}: {figures}   {max(costs) / min(costs):.2f}")
    return 0


def check(args):
    if args.rounds < 1:
        raise ValueError(f"--rounds {args.rounds}: every contender has at least one turn")
    if not 0 < args.seconds < float("inf"):
        raise ValueError(f"--seconds {args.seconds}: a turn takes a positive number of seconds")
    if min(args.threads) < 1:
        raise ValueError(f"--threads {min(args.threads)}: a number of threads is 1 or more")
    for option, path in (("--json", args.json), ("--plot", args.plot)):
        if path and not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            raise ValueError(f"{option} {path}: there is no such directory to write the file in")
        if path and os.path.isdir(path):
            raise ValueError(f"{option} {path}: is a directory; the name of a file is needed")


def compare(args):
    """Measures, writes, prints; returns the exit status."""
    from tqdm import tqdm

    chosen = [w for w in WORKLOADS if not args.only or args.only in w]
    if not chosen:
        raise ValueError(f"--only {args.only}: no workload is called so; there are {', '.join(WORKLOADS)}")
    status, report = 0, {}
    with tqdm(total=len(chosen) * args.rounds, disable=None, unit=" rounds") as bar:
        for workload in chosen:
            bar.set_description(workload)
            report[workload] = measure(workload, args, bar)
    if args.json:
        from tinymnist.runtime.files import (  # not earlier: a worker's peak would begin at this process's
            DataError,
            replacing,
        )

        try:
            with replacing(args.json) as stream:
                stream.write(json.dumps(report, indent=1).encode())
        except DataError as error:
            status = failed(error)
    table(report)
    if args.plot:
        chart(report, args.plot)
    return status


def failed(sentence):
    print(sentence, file=sys.stderr)
    return 2


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--data", default=os.environ.get("TINYMNIST_DATA"), help="a directory with MNIST's four .gz files"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns that every contender has")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn, about")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}), help="numbers of threads"
    )
    parser.add_argument(
        "--pixels", action="store_true", help="instead: what an output pixel of conv2d costs as images grow"
    )
    parser.add_argument("--only", metavar="WORDS", help="only workloads whose name contains this")
    parser.add_argument(
        "--torch-python", default=sys.executable, metavar="PYTHON", help="an interpreter that has PyTorch"
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--plot", metavar="FILE", help="draw a bar chart there")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if not args.data:
        args.data = os.path.expanduser("~/.mxnet/datasets/mnist")
    if args.worker:
        return worker(args.worker, args.only, args.data)
    try:
        check(args)
        if args.pixels:
            return pixels(args.rounds)
        missing = [name for name in FILES if not os.path.exists(os.path.join(args.data, name))]
        if missing:
            raise ValueError(
                f"{args.data}: there is no {missing[0]}; give the directory of MNIST's four files by --data"
            )
        return compare(args)
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        return failed(error)


if __name__ == "__main__":
    sys.exit(main())
