"""Measure what more machines and more data cost: python scripts/scaling.py [--data]

It measures training steps on one core and exchanges between two workers. From these times, a formula predicts the time
of a step with two workers, which is measured too, and how many machines make training faster. With --data it measures
time and memory for data 1, 10 and 100 times as large as MNIST.
"""

import cli  # isort: skip

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from processes import kill_at_end, start_child

import tinymnist as tm
from tinymnist.backend import mx, nd
from tinymnist.runtime.devices import Exchange

BATCHES = (5, 10, 25, 50, 100)  # images in a batch
SIZES = (1000, 10000, 100000, 400000, 1000000)  # numbers in a vector that is exchanged
SENT = Path("/sys/class/net/lo/statistics/tx_bytes")  # how much this machine has sent to itself
NETWORKS = {"1 Gbit/s": (1.25e8, 1e-4), "10 Gbit/s": (1.25e9, 3e-5)}  # assumed: bytes per second, seconds per message


def train(model, data, steps, **settings):
    """Train for at least `steps` steps. Returns the time of the start, and those after each step."""
    times = [time.perf_counter()]

    def on_batch(run, examples):
        run.model.weights.wait_to_read()
        times.append(time.perf_counter())
        run.stop = len(times) > steps  # several workers stop after the epoch

    tm.fit(model, tm.Optimizer("sgd", lr=1e-4), data, epochs=1000, log_interval=10**6, on_batch=on_batch, **settings)
    return times


def lower_quartile(times):
    """The lower quartile of seconds between two times, without the first five: other programs disturb single steps."""
    return float(np.percentile(np.diff(times)[5:], 25))


def time_steps(model, batch_sizes, steps, kvstore="local"):
    """[seconds of a step, number of steps] for each batch size"""
    make, data = tm.models.MODELS[model], tm.load("digits")
    times = [train(make(), data, steps, batch_size=n, kvstore=kvstore) for n in batch_sizes]
    return [(lower_quartile(t), len(t) - 1) for t in times]


def time_exchanges(steps):
    """Seconds of an exchange for each size in SIZES"""
    exchange, seconds = Exchange([mx.cpu()], "dist_sync"), []
    for n in SIZES:
        vector, times = nd.zeros((n,)), [time.perf_counter()]
        for _ in range(steps):
            exchange.sum([vector])
            vector.wait_to_read()
            times.append(time.perf_counter())
        seconds.append(lower_quartile(times))
    exchange.finish()
    return seconds


def measure_data(directory, steps):
    """Images, bytes, seconds to load, seconds of the first step, µs per image, additional megabytes of memory"""
    train(tm.mlp(), tm.load("digits"), 1)  # so that MXNet and the code are in memory
    memory, began = read_memory("VmRSS"), time.perf_counter()
    data = tm.load(directory)
    times, images = train(tm.mlp(), data, steps, normalize=True), data.train.images
    memory = read_memory("VmHWM") - memory
    return len(images), images.nbytes, times[0] - began, times[1] - times[0], lower_quartile(times) * 1e4, memory


def read_memory(name):
    """Megabytes of this process, with pages of mapped files: VmRSS now, VmHWM at most until now"""
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1000


def run_child(function, *arguments, workers=None, pin=False):
    """Call a function in a new process, on one core with pin=True. Returns its result, or those of several workers."""
    launch = ["scripts/launch.py", "--workers", str(workers), "--pin", "--script", __file__, "--"]
    with tempfile.TemporaryDirectory() as folder:
        words = ["--child", folder, function.__name__, json.dumps(arguments)]
        command = [sys.executable, *(launch if workers else [__file__]), *words]
        with kill_at_end(start_child(command, cwd=cli.ROOT)) as process:
            if pin:
                os.sched_setaffinity(process.pid, [max(os.sched_getaffinity(0))])
            if process.wait():
                raise SystemExit(process.returncode)
        results = [json.loads(path.read_text()) for path in Path(folder).iterdir()]
    return results if workers else results[0]


def fit_line(numbers, seconds):
    """(a, b) of seconds = a + b · number, by least squares of the relative errors"""
    b, a = np.polyfit(numbers, seconds, 1, w=1 / np.array(seconds))
    return max(a, 0.0), b


def predict_step(compute, exchange, size, batch, machines, network):
    """Seconds of a step. compute is (a, b), exchange is (wait, c), network is (bandwidth, latency).

    Every machine is a worker and a server. Both send 4 bytes per parameter and receive as many.
    """
    (a, b), (wait, c), (bandwidth, latency) = compute, exchange, network
    if machines == 1:
        return a + b * batch
    moved = 2 * 4 * size * (machines - 1) / machines  # bytes that one machine sends through the network
    return a + b * batch / machines + wait + 2 * latency + 2 * moved * c + moved / bandwidth


def count_machines(compute, exchange, size, batch, network):
    """(machines, speedup): the smallest number of machines to which a tenth more add less than 2 %"""
    last = 2 * batch + 1
    seconds = {m: predict_step(compute, exchange, size, batch, m, network) for m in range(1, last + 1)}
    best = min(seconds, key=seconds.get)
    flat = (m for m in range(2, best) if seconds[m] < 1.02 * seconds[min(last, max(m + 1, round(1.1 * m)))])
    enough = next(flat, best)
    return (enough, seconds[1] / seconds[enough]) if seconds[enough] < seconds[1] else (1, 1.0)


def report_machines(models, steps):
    os.environ["OMP_NUM_THREADS"] = "1"  # for the children, each of which has one core
    sizes = {model: tm.models.MODELS[model]().size for model in models}
    print("ms per step on one core, by the number of images in a batch")
    print(f"{'model':12}{'parameters':>11}" + "".join(f"{n:>8}" for n in BATCHES) + "   a + b · images")
    lines = {}
    for model, size in sizes.items():
        seconds = [s for s, _ in run_child(time_steps, model, BATCHES, steps, pin=True)]
        a, b = lines[model] = fit_line(BATCHES, seconds)
        columns = "".join(f"{s * 1e3:8.2f}" for s in seconds)
        print(f"{model:12}{size:11,}{columns}   {a * 1e3:.2f} ms + {b * 1e6:.1f} µs · images", flush=True)

    seconds = np.max(run_child(time_exchanges, 50, workers=2), axis=0)
    sent = [2 * 2 * 4 * n for n in SIZES]  # two workers, both directions, 4 bytes per number
    wait, c = exchange = fit_line(sent, seconds)
    print(f"\nexchange between two workers: {wait * 1e3:.2f} ms + bytes / {1e-6 / c:,.0f} MB/s")
    print("bytes" + "".join(f"{n:14,}" for n in sent))
    print("ms   " + "".join(f"{s * 1e3:14.2f}" for s in seconds))

    print("\nms per step with batches of 100, and bytes on the wire")
    print("model        1 worker  2 workers  predicted  bytes, 1 worker  bytes, 2 workers  8 · parameters")
    for model, size in sizes.items():
        times, sent = [], []
        for workers in (1, 2):
            before = int(SENT.read_text())
            results = run_child(time_steps, model, [100], steps, "dist_sync", workers=workers)
            seconds, number = np.max(results, axis=0)[0]
            times.append(seconds * 1e3)
            sent.append((int(SENT.read_text()) - before) / number)
        times.append((lines[model][0] + 50 * lines[model][1] + wait + c * 16 * size) * 1e3)
        columns = "{:9.2f}{:11.2f}{:11.2f}{:17,.0f}{:18,.0f}{:16,}".format(*times, *sent, 8 * size)
        print(f"{model:12}{columns}", flush=True)

    print("\nmachines that make training faster, and how much faster than one machine they are")
    print(f"{'model':12}{'batch':>6}" + "".join(f"{network:>18}" for network in NETWORKS))
    for model, batch in [(model, batch) for model in models for batch in (100, 1000)]:
        found = [count_machines(lines[model], exchange, sizes[model], batch, network) for network in NETWORKS.values()]
        print(f"{model:12}{batch:6}" + "".join(f"{f'{count}: {gain:.1f} times':>18}" for count, gain in found))


def report_data(steps):
    """Train on uncompressed files of noise, which are read from the disk."""
    print("   images          bytes  load, s  first step, s  µs per image  additional memory, MB")
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, 10, 100):
            write_noise(Path(folder), 60000 * times)
            row = run_child(measure_data, folder, steps)
            print("{:9,}{:15,}{:9.2f}{:15.2f}{:14.2f}{:23.0f}".format(*row), flush=True)


def write_noise(directory, n):
    """Write the four files of a data set with n training images of noise and 1,000 test images."""
    directory.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (1000, 28, 28), np.uint8)
    tm.idx.write(directory / "t10k-images-idx3-ubyte", noise)
    with open(directory / "train-images-idx3-ubyte", "wb") as file:  # it may be larger than memory
        file.write(bytes([0, 0, 8, 3]) + np.array([n, 28, 28], ">u4").tobytes())
        for begin in range(0, n, 1000):
            file.write(noise[: n - begin].tobytes())
    for prefix, count in (("train", n), ("t10k", 1000)):
        tm.idx.write(directory / f"{prefix}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))


def measure(argv):
    description, details = __doc__.split("\n\n")
    p = cli.Parser(description=description, epilog=details)
    p.add_argument("--steps", type=int, default=200, metavar="N", help="steps that are timed; default: 200")
    models = ["softmax", "mlp", "lenet"]
    names = ", ".join(tm.models.MODELS)
    p.add_argument(
        "--models", nargs="+", choices=tm.models.MODELS, default=models, metavar="MODEL",
        help=f"{names}; default: softmax mlp lenet",
    )  # fmt: skip
    p.add_argument("--data", action="store_true", help="measure larger data instead (needs 5 GB of disk for a while)")
    p.add_argument("--child", nargs=3, help=argparse.SUPPRESS)  # see run_child
    args = p.parse_args(argv)
    if args.child:
        folder, name, arguments = args.child
        Path(folder, str(os.getpid())).write_text(json.dumps(globals()[name](*json.loads(arguments))))
    elif args.steps < 10:
        raise ValueError(f"--steps must be 10 or more, as the first five do not count, not {args.steps}")
    elif args.data:
        report_data(args.steps)
    else:
        report_machines(args.models, args.steps)


def main(argv=None):
    return cli.run(lambda _: measure(argv))


if __name__ == "__main__":
    cli.start(main)
