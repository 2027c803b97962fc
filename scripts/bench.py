"""Compare the speed of tinymnist, Gluon and PyTorch: python scripts/bench.py --rounds 7

Every contender trains the same weights on the same batch in a process of its own, which has its own peak memory. The
processes take turns, and a ratio is the median over all rounds of the ratio of two times from one round. Each
contender runs with every number n of threads in --threads (as OMP_NUM_THREADS), and the fastest number counts.
tinymnist also trains on n CPU devices with one thread each.
"""

from processes import kill_at_end, start_child  # isort: skip  (first, as it lets Ctrl-C end the imports)

import argparse
import contextlib
import json
import math
import os
import re
import resource
import shutil
import sys
import tempfile
import threading
import time
import timeit
from pathlib import Path
from subprocess import PIPE

import numpy as np

HYPER = {
    "sgd": {"lr": 0.1},
    "momentum": {"lr": 0.1, "momentum": 0.9},
    "adagrad": {"lr": 0.1},
    "rmsprop": {"lr": 0.001, "rho": 0.9},
    "adadelta": {"rho": 0.9},
}
STEPS = {  # one training step: (model, its arguments, rule, batch size)
    **{f"softmax {rule}": ("softmax", {}, rule, 64) for rule in HYPER},
    "mlp sgd": ("mlp", {"activation": "relu"}, "sgd", 100),
    "lenet tanh sgd": ("lenet", {"activation": "tanh"}, "sgd", 100),
    "lenet relu sgd": ("lenet", {"activation": "relu"}, "sgd", 100),
    "dropout-cnn momentum": ("dropout-cnn", {"activation": "relu"}, "momentum", 64),
}
PREDICT, LOAD, EPOCH = "predict 10,000 lenet", "load to first batch", "epoch from the loader"
WORKLOADS = {
    **STEPS,
    PREDICT: ("lenet", {"activation": "tanh"}, "sgd", 200),
    **dict.fromkeys((LOAD, EPOCH), ("softmax", {}, "sgd", 64)),
}
OURS, PLAIN, GLUON, HYBRID, PYTORCH = CONTENDERS = [
    "tinymnist", "tinymnist --no-compile", "Gluon", "Gluon hybridized", "PyTorch"
]  # fmt: skip
LEFT_OUT = {PREDICT: [PLAIN], LOAD: [PLAIN, HYBRID, PYTORCH], EPOCH: [PYTORCH]}
FILES = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def prepare_tinymnist(contender, workload, data, peer, devices):
    """(a function that does the workload once, one that waits for the end). PyTorch's inputs go to the file `peer`.

    Each of so many CPU devices trains on its part of the batch.
    """
    import tinymnist as tm
    from tinymnist.backend import mx, nd
    from tinymnist.batches import permutation
    from tinymnist.runtime.devices import Exchange
    from tinymnist.runtime.step import Step, copy_model, share_batches

    name, arguments, rule, size = WORKLOADS[workload]
    model = tm.models.MODELS[name](**arguments).initialize(0)
    if workload == LOAD:
        rows = np.arange(size)
        return lambda: next(tm.Batches(tm.load(data).train, size, model.weights.context).epoch(rows)), nd.waitall
    loaded = tm.load(data)
    first = tm.Split(*(array[:size] for array in loaded.train))
    images, labels = loaded.test if workload == PREDICT else first
    if contender == OURS:
        np.savez(peer, images=images, labels=labels, **{key: w.asnumpy() for key, w in model.parameters.items()})
    split = loaded.train if workload == EPOCH else first
    exchange = Exchange([mx.cpu(i) for i in range(devices)])
    models = [model, *(copy_model(model, device) for device in exchange.devices[1:])]
    steps = [
        Step(twin, tm.Optimizer(rule, **HYPER[rule]), split, size, share=share, compile=contender == OURS)
        for twin, share in zip(models, exchange.shares())
    ]

    def make_batches(order):
        return zip(*(share_batches(step.batches, order, step.share) for step in steps))

    def train(parts):
        examples = sum(len(part[1]) for part in parts if part)
        for step, part in zip(steps, parts):
            step.compute_gradient(part, examples)
        exchange.sum([step.model.gradients for step in steps])
        for step in steps:
            step.update(step.optimizer.hyper)

    def train_epoch():
        for parts in make_batches(permutation(0, 0, len(split.labels))):
            train(parts)

    parts = next(make_batches(np.arange(size)))
    work = {PREDICT: lambda: tm.predict(model, images), EPOCH: train_epoch}
    return work.get(workload, lambda keep=loaded: train(parts)), nd.waitall  # the data stays in memory, as in training


def prepare_gluon(contender, workload, data, peer, devices):
    from gluon_networks import gluon_network, gluon_rule

    from tinymnist.backend import autograd, mx, nd
    from tinymnist.models import MODELS

    vision, loader = mx.gluon.data.vision, mx.gluon.data.DataLoader
    # The same data may be compressed differently; then Gluon would download it again.
    vision.datasets.check_sha1 = mx.gluon.utils.check_sha1 = lambda *_: True
    name, arguments, rule, size = WORKLOADS[workload]
    if workload == LOAD:
        return lambda: next(iter(loader(vision.MNIST(data, train=True), size))), nd.waitall
    split = vision.MNIST(data, train=workload != PREDICT)
    x, y = split[: None if workload == PREDICT else size]
    images, y = x.transpose((0, 3, 1, 2)), nd.array(y)
    x = images[:size].astype("float32") / 255
    network, criterion = gluon_network(name, **arguments), mx.gluon.loss.SoftmaxCrossEntropyLoss()
    network.initialize()
    network(x)
    model = MODELS[name](**arguments).initialize(0)
    for key, parameter in network._collect_params_with_prefix().items():
        parameter.set_data(model.parameters[key])
    if contender == HYBRID:
        network.hybridize(static_alloc=True, static_shape=True)
        criterion.hybridize(static_alloc=True, static_shape=True)
    trainer = mx.gluon.Trainer(network.collect_params(), *gluon_rule(rule, HYPER[rule]))

    def predict():
        parts = (images[i : i + size].astype("float32") / 255 for i in range(0, len(images), size))
        return np.concatenate([nd.softmax(network(part)).asnumpy() for part in parts])

    def train(x, y):
        with autograd.record():
            loss = criterion(network(x), y)
        loss.backward()
        trainer.step(len(y))

    def train_epoch():
        for x, y in loader(split.transform_first(vision.transforms.ToTensor()), size, shuffle=True):
            train(x, y)

    return {PREDICT: predict, EPOCH: train_epoch}.get(workload, lambda keep=split: train(x, y)), nd.waitall


def torch_network(name, weights, activation="relu"):
    """The PyTorch twin of a tinymnist model. `weights`: all arrays of the model, in its order."""
    import torch
    from torch import nn

    def make_layer():
        weight, bias = torch.tensor(next(arrays)), torch.tensor(next(arrays))
        outputs, inputs, *kernel = weight.shape
        layer = nn.Conv2d(inputs, outputs, kernel) if kernel else nn.Linear(inputs, outputs)
        layer.weight.data, layer.bias.data = weight, bias
        return layer

    arrays = iter(weights)
    words = {
        "softmax": "flatten dense",
        "mlp": "flatten dense activation dense activation dense",
        "lenet": "conv activation pool conv activation pool flatten dense activation dense",
        "dropout-cnn": "conv pool activation conv dropout2d pool activation flatten dense activation dropout dense",
    }
    parts = {"conv": make_layer, "dense": make_layer, "flatten": nn.Flatten, "pool": lambda: nn.MaxPool2d(2)}
    parts.update(activation={"relu": nn.ReLU, "tanh": nn.Tanh}[activation], dropout=nn.Dropout, dropout2d=nn.Dropout2d)
    return nn.Sequential(*(parts[word]() for word in words[name].split()))


def torch_rule(name, hyper, parameters):
    """PyTorch's optimizer for a rule of tinymnist."""
    from torch import optim

    kinds = {"adagrad": optim.Adagrad, "rmsprop": optim.RMSprop, "adadelta": optim.Adadelta}
    names = {"rho": "alpha"} if name == "rmsprop" else {}
    return kinds.get(name, optim.SGD)(parameters, **{names.get(key, key): value for key, value in hyper.items()})


def prepare_torch(contender, workload, data, peer, devices):
    """PyTorch's process has no MXNet. All it reads is the file `peer`."""
    import torch

    name, arguments, rule, size = WORKLOADS[workload]
    with np.load(peer) as arrays:
        images, labels, *weights = arrays.values()
    images, y = torch.tensor(images[:, None]), torch.tensor(labels[:size].astype("int64"))
    x = images[:size].float() / 255
    network, criterion = torch_network(name, weights, **arguments), torch.nn.CrossEntropyLoss()
    optimizer = torch_rule(rule, HYPER[rule], network.parameters())

    def predict():
        with torch.no_grad():
            return torch.cat([network(part.float() / 255).softmax(1) for part in images.split(size)]).numpy()

    def train():
        optimizer.zero_grad()
        criterion(network(x), y).backward()
        optimizer.step()

    return predict if workload == PREDICT else train, lambda: None


def measure_products(workload):
    """[GFLOP/s of a large matrix product, GFLOP in the products of one step: three a layer, two in the first layer]"""
    from tinymnist.backend import nd
    from tinymnist.models import MODELS

    name, arguments, _, size = WORKLOADS[workload]
    model, products = MODELS[name](**arguments), []
    shape = model.image
    for layer in model.layers:
        parameters, shape = layer.plan((math.prod(shape),) if layer.takes_vectors else shape)
        if parameters:
            products.append(2 * size * math.prod(parameters["weight"]) * math.prod(shape[1:]) / 1e9)
    a = nd.random.normal(shape=(1024, 1024))
    return [measure_rate(lambda: nd.dot(a, a)), 3 * sum(products) - products[0]]


def measure_rate(product):
    """GFLOP/s of a function that multiplies two matrices (1024, 1024): the median of five calls after the first"""
    seconds = np.median(timeit.repeat(lambda: product().wait_to_read(), number=1, repeat=6)[1:])
    return 2 * 1024**3 / 1e9 / seconds


def describe_machine(threads):
    """Lines on the processor and, by number of threads, on the speed of large matrix products."""
    lines, file = [], Path("/proc/cpuinfo")
    if file.exists():
        cpu = dict(re.findall(r"^(.+?)\s*: (.*)", file.read_text(), re.MULTILINE))
        family = f"family {cpu.get('cpu family')}, model {cpu.get('model')}"
        flags = [flag for flag in ("avx2", "fma", "avx512f") if flag in cpu.get("flags", "").split()]
        lines.append(f"{cpu.get('model name')} ({family}), {os.cpu_count()} cores, {' '.join(flags)}")
    for number in threads:
        environment = {**os.environ, "OMP_NUM_THREADS": str(number), "OPENBLAS_VERBOSE": "2"}
        command, pipes = [sys.executable, __file__, "--worker", "products"], {"stdout": PIPE, "stderr": PIPE}
        with kill_at_end(start_child(command, text=True, env=environment, **pipes)) as process:
            rates, words = process.communicate()
        kernel = (re.findall(r"Core: (\w+)", words) or ["unknown"])[-1]  # numpy's OpenBLAS comes before MXNet's
        lines.append(f"products, threads {number}: {rates.strip()} GFLOP/s; OpenBLAS kernel {kernel}")
    return lines


def print_product_rates():
    """GFLOP/s of a product of two matrices (1024, 1024), by `dot` and by Gluon's operation."""
    from tinymnist.backend import nd

    a = nd.random.normal(shape=(1024, 1024))
    dot = measure_rate(lambda: nd.dot(a, a))
    builtin = measure_rate(lambda: nd.FullyConnected(a, a, no_bias=True, num_hidden=1024))
    print(f"dot {dot:.0f}, FullyConnected {builtin:.0f}")


def answer_questions(contender, workload, data, peer, devices):
    """A contender's process. A line on stdin is a number of repetitions; the answer is [seconds each, peak MB]."""
    prepare = prepare_torch if contender == PYTORCH else prepare_gluon if "Gluon" in contender else prepare_tinymnist
    run, wait = prepare(contender, workload, data, peer, devices)
    for line in sys.stdin:
        if line == "products\n":
            answer = measure_products(workload)
        else:
            run()  # not timed: a process that has waited for its turn is slow at first
            wait()
            start = time.perf_counter()
            for _ in range(int(line)):
                run()
            wait()
            seconds = (time.perf_counter() - start) / int(line)
            answer = [seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]
        print(json.dumps(answer), flush=True)


class Worker:
    """The process of a contender with a number of threads for each device. It has done the workload when it is made."""

    def __init__(self, title, threads, devices, workload, args, peer):
        self.title, self.workload = title, workload
        self.result = {"ms": [], "mb": 0.0, "threads": threads, "devices": devices}
        python = args.torch_python if title == PYTORCH else sys.executable
        command = [python, __file__, "--worker", title, "--only", workload, "--data", args.data, "--peer", peer]
        command += ["--devices", str(devices)]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), PIPE)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = start_child(command, text=True, env=environment, **pipes)
        self.ask(1)
        self.times = max(1, round(args.seconds / self.ask(3 if workload in STEPS else 1)[0]))

    def ask(self, line):
        """The answer to a line. Raises ValueError, with the last line of stderr, if there is none."""
        try:
            print(line, file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError) as error:
            self.process.kill()
            words = self.process.communicate()[1].strip() or "its process ended without an answer"
            raise ValueError(f"{self.title} cannot run {self.workload!r}: {words.splitlines()[-1]}") from error


def measure(workload, args, bar):
    """The figures of a workload: for each contender its time in every round, its peak memory, its best threads."""
    with tempfile.NamedTemporaryFile(suffix=".npz") as peer, contextlib.ExitStack() as stack:
        workers = []
        for title in CONTENDERS:  # tinymnist first: PyTorch reads what it writes
            ways = [(threads, 1) for threads in args.threads]  # (threads, devices)
            if title in (OURS, PLAIN) and workload in (*STEPS, EPOCH):
                ways += [(1, devices) for devices in args.threads if devices > 1]
            try:
                for threads, devices in [] if title in LEFT_OUT.get(workload, []) else ways:
                    workers.append(Worker(title, threads, devices, workload, args, peer.name))
                    stack.enter_context(kill_at_end(workers[-1].process))
            except (OSError, ValueError) as error:
                if title == OURS:
                    raise
                bar.write(f"left out: {error}", file=sys.stderr)
        ours, rates = [worker for worker in workers if worker.title == OURS], []
        for _ in range(args.rounds):
            for worker in workers:
                seconds, worker.result["mb"] = worker.ask(worker.times)
                worker.result["ms"].append(seconds * 1e3)
            if workload in STEPS:
                rates.append(max(worker.ask("products") for worker in ours))
            bar.update()
        workers.sort(key=lambda worker: np.median(worker.result["ms"]), reverse=True)
        best = {worker.title: worker.result for worker in workers}  # the fastest is the last
        rate = None
        if rates:
            rate, size = np.median(rates, axis=0)
            best[OURS]["share of product rate"] = size / np.median(best[OURS]["ms"]) * 1e3 / rate
        return {"contenders": best, "product GFLOP/s": rate}


def ratio(results, one, other):
    """The median over rounds of the time of one contender / that of the other; None if one of them did not run."""
    if one not in results or other not in results:
        return None
    return float(np.median(np.array(results[one]["ms"]) / np.array(results[other]["ms"])))


def print_table(report):
    print("ours /: tinymnist's time / this time.   plain /: the time of tinymnist --no-compile / this time.")
    print("threads: 2 × 1 means two CPU devices with one thread each.")
    print(f"{'':26}{'median ms':>11}{'min':>11}{'max':>11}{'peak MB':>9}{'threads':>9}{'ours /':>9}{'plain /':>9}")
    for workload, result in report.items():
        results = result["contenders"]
        share = results[OURS].get("share of product rate")
        print(workload + (f": {share:.0%} of the speed of a large matrix product" if share else ""))
        for title in (title for title in CONTENDERS if title in results):
            found = results[title]
            times = "".join(f"{f(found['ms']):11.3f}" for f in (np.median, min, max))
            ratios = [ratio(results, other, title) for other in (OURS, PLAIN)]
            columns = "".join(f"{r:9.2f}" if r else f"{'–':>9}" for r in ratios)
            threads = f"{found['devices']} × {found['threads']}" if found["devices"] > 1 else found["threads"]
            print(f"  {title:24}{times}{found['mb']:9.0f}{threads:>9}{columns}")


def draw_chart(report):
    """A figure with a bar for every contender that ran: its time / tinymnist's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.55 * len(report) + 1.5), layout="constrained")
    axes = figure.subplots()
    results = [result["contenders"] for result in report.values()]
    titles = [title for title in CONTENDERS if any(title in found for found in results)]
    for i, title in enumerate(titles):
        rows = {y + 0.8 * i / len(titles) - 0.4: ratio(r, title, OURS) for y, r in enumerate(results) if title in r}
        axes.barh([*rows], [*rows.values()], 0.8 / len(titles), align="edge", label=title)
    axes.set(title="One training step, or the work that the name says: medians over rounds")
    axes.set(xscale="log", xlabel="time, tinymnist = 1 (logarithmic; longer is slower)")
    axes.set_yticks(range(len(report)), report)
    axes.set_xticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
    axes.invert_yaxis()
    axes.axvline(1, color="black", lw=0.8)
    axes.legend(fontsize=8)
    return figure


def print_pixel_costs(rounds):
    """Nanoseconds per output pixel of conv2d, forward and backward, for images of 28 to 224 pixels a side."""
    from tinymnist.backend import autograd, nd
    from tinymnist.layers import Conv2D, Sequential
    from tinymnist.runtime.graph import Replay

    def run():
        with autograd.record():
            loss = replay(x)[0]
        loss.backward()
        nd.waitall()

    print("conv2d, forward and backward: ns per output pixel at 28, 56, 112, 224 pixels a side; largest / smallest")
    for channels, filters, kernel, n in ((1, 20, 5, 32), (8, 16, 5, 16), (16, 16, 3, 16)):
        costs = []
        for side in (28, 56, 112, 224):
            model = Sequential(Conv2D(filters, kernel), image=(channels, side, side)).initialize()
            replay = Replay(lambda x, model=model: [model(x).mean()], model.parameters.values())
            x = nd.random.normal(shape=(n, channels, side, side))
            times = timeit.repeat(run, number=1, repeat=rounds + 2)[2:]
            costs.append(np.median(times) / (n * (side - kernel + 1) ** 2) * 1e9)
        row = "  ".join(f"{cost:7.1f}" for cost in costs)
        print(f"{channels:3} channels, {filters} filters {kernel}×{kernel}: {row}   {max(costs) / min(costs):.2f}")
    return 0


def check_arguments(args):
    """Raise ValueError for an option that cannot work, before anything is measured."""
    checks = [
        (args.rounds >= 1, f"--rounds is {args.rounds}; at least one round is needed"),
        (0 < args.seconds < math.inf, f"--seconds is {args.seconds}; a turn takes a positive number of seconds"),
        (min(args.threads) >= 1, f"--threads has {min(args.threads)}; a number of threads is 1 or more"),
        (shutil.which(args.torch_python), f"--torch-python {args.torch_python}: there is no such program"),
    ]
    for option, path in (("--json", args.json), ("--plot", args.plot)):
        folder = os.path.dirname(os.path.abspath(path or "."))
        checks.append((os.path.isdir(folder), f"{option} {path}: there is no such directory to write the file in"))
        checks.append((not path or not os.path.isdir(path), f"{option} {path}: it is a directory, not a file"))
    for fine, sentence in checks:
        if not fine:
            raise ValueError(sentence)


def compare(args):
    """Measure, write the figures, print them."""
    from tqdm import tqdm

    workloads = [workload for workload in WORKLOADS if (args.only or "") in workload]
    if not workloads:
        raise ValueError(f"--only {args.only}: no name of a workload contains it; there are {', '.join(WORKLOADS)}")
    for name in FILES:  # Gluon would download them
        if not os.path.exists(os.path.join(args.data, name)):
            raise ValueError(f"{args.data}: there is no {name}; --data names a directory with MNIST's four .gz files")
    report, machine = {}, describe_machine(args.threads)
    print("\n".join(machine))
    tqdm.set_lock(threading.RLock())  # tqdm's own lock is a semaphore, which a killed process would leave behind
    with tqdm(total=len(workloads) * args.rounds, disable=None, unit=" rounds") as bar:
        for workload in workloads:
            bar.set_description(workload)
            report[workload] = measure(workload, args, bar)
    try:
        if args.json:
            Path(args.json).write_text(json.dumps({"machine": machine, **report}, indent=1))
    finally:
        print_table(report)
    if args.plot:
        draw_chart(report).savefig(args.plot, dpi=100)
    return 0


def main(argv=None):
    data = os.environ.get("TINYMNIST_DATA") or os.path.expanduser("~/.mxnet/datasets/mnist")
    description, details = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(description=description, epilog=details)
    parser.set_defaults(threads=sorted({1, os.cpu_count() or 1}), torch_python=sys.executable)
    add = parser.add_argument
    add("--data", metavar="DIR", default=data, help="a directory with MNIST's four .gz files; default: %(default)s")
    add("--rounds", type=int, metavar="N", default=5, help="how many turns every contender has; default: 5")
    add("--seconds", type=float, metavar="S", default=0.5, help="about how long a turn takes; default: 0.5")
    add("--threads", type=int, metavar="N", nargs="+", help="numbers of threads to try; default: 1 and the core count")
    add("--only", metavar="WORDS", help="measure only the workloads whose names contain these words; default: all")
    add("--torch-python", metavar="PYTHON", help="a Python that can import PyTorch; default: this one")
    add("--json", metavar="FILE", help="write all results to this file")
    add("--plot", metavar="FILE", help="draw a bar chart in this file")
    add("--pixels", action="store_true", help="measure only how long conv2d takes for each output pixel as images grow")
    add("--worker", help=argparse.SUPPRESS)
    add("--peer", help=argparse.SUPPRESS)
    add("--devices", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker == "products":
        return print_product_rates()
    if args.worker:
        return answer_questions(args.worker, args.only, args.data, args.peer, args.devices)
    import cli  # not above: PyTorch's process may have no MXNet

    def work(signals):
        check_arguments(args)
        return print_pixel_costs(args.rounds) if args.pixels else compare(args)

    return cli.run(work)


if __name__ == "__main__":
    sys.exit(main())
