"""Measures what more machines and more data cost: python scripts/scaling.py [--steps N] [--models …] [--data]

Of each model: the time of a step on shares of several sizes, on one core; of exchanges between two workers, on a core
each; and of a step of one and two workers, with its bytes on the wire, beside what follows from the former. The same
arithmetic says how many machines still gain. --data trains on 1, 10 and 100 times MNIST instead: time and memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SHARES = (5, 10, 25, 50, 100)  # images
SIZES = (1000, 10000, 100000, 400000, 1000000)  # floats
NETWORKS = {"1 Gbit/s": (1.25e8, 1e-4), "10 Gbit/s": (1.25e9, 3e-5)}  # assumed: bytes a second, seconds a message


def seconds_a_step(name, batch_size, steps, kvstore="local"):
    """The lower quartile of `steps` training steps: what they take where nothing else runs."""
    import tinymnist as tm

    rng = np.random.default_rng(0)
    split = tm.datasets.load.Split(
        rng.integers(0, 256, (2000, 28, 28), np.uint8), rng.integers(0, 10, 2000).astype(np.uint8)
    )
    data = tm.datasets.load.Data(split, split, "noise", "noise")
    settings = tm.Settings(epochs=1000, batch_size=batch_size, kvstore=kvstore, log_interval=1000000)
    run, times = tm.Run(tm.models.MODELS[name](), tm.Optimizer("sgd", lr=1e-4), data, settings), [time.perf_counter()]

    def on_batch(run, examples):
        run.model.weights.wait_to_read()
        times.append(time.perf_counter())
        run.stop = kvstore == "local" and len(times) > steps  # many machines agree on the last batch of an epoch

    if kvstore != "local":
        run.settings = dataclasses.replace(settings, epochs=-(-steps // len(run.replicas[0].batches)))
    run.train(on_batch=on_batch)
    each = np.diff(times)[5:]
    return {"seconds": float(np.percentile(each, 25)), "steps": len(times) - 1}


def seconds_of_shares(steps, *names):
    """{model: seconds of a step on so many images as SHARES says}"""
    return {name: [seconds_a_step(name, n, steps)["seconds"] for n in SHARES] for name in names}


def exchanges(steps):
    """{number of floats: seconds of their exchange}"""
    from tinymnist.backend import mx, nd
    from tinymnist.runtime import devices

    exchange, quartiles = devices.Exchange([mx.cpu()], "dist_sync"), {}
    for n in SIZES:
        vector, times = nd.zeros((n,)), [time.perf_counter()]
        for _ in range(steps):
            exchange.sum([vector], f"{n} floats")
            vector.wait_to_read()
            times.append(time.perf_counter())
        quartiles[n] = float(np.percentile(np.diff(times)[5:], 25))
    exchange.part()
    return quartiles


def in_a_process(function, *arguments, workers=0):
    """What one of CHILDREN gives in a process of its own on one core, or [in each of so many workers that exchange]."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--child", folder, function, *map(str, arguments)]
        if workers:
            launch = [ROOT / "scripts" / "launch.py", "--workers", str(workers), "--pin", "--script", __file__, "--"]
            status = subprocess.run([sys.executable, *launch, *words]).returncode
        else:
            core, environment = max(os.sched_getaffinity(0)), {**os.environ, "OMP_NUM_THREADS": "1"}
            pin = lambda: os.sched_setaffinity(0, [core])  # noqa: E731
            status = subprocess.run([sys.executable, __file__, *words], env=environment, preexec_fn=pin).returncode
        if status:
            raise SystemExit(status)
        results = [json.loads(path.read_text()) for path in Path(folder).iterdir()]
    return results if workers else results[0]


CHILDREN = {function.__name__: function for function in (seconds_a_step, seconds_of_shares, exchanges)}


def sent():
    """Bytes that this machine has sent to itself."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))


def fitted(points):
    """(a, b) of seconds = a + b n by least squares of relative errors."""
    n, seconds = np.array(points).T
    (a, b), *_ = np.linalg.lstsq(np.stack([1 / seconds, n / seconds], 1), np.ones(len(n)), rcond=None)
    return max(a, 0.0), b


def predicted(compute, exchange, size, batch, machines, network):
    """Seconds a step = a + b · batch / machines; of more than one, + wait + c · bytes + bytes / bandwidth + 2 latency.

    (a, b) is the time of a share, (wait, c) that of an exchange without a network, (bandwidth, latency) the network's.
    Every machine trains and serves: as a worker it sends 4 bytes a parameter and has as many back, as a server it
    gets and gives as many; (machines − 1) / machines of that passes the network, both ways at once.
    """
    (a, b), (wait, c), (bandwidth, latency) = compute, exchange, network
    if machines == 1:
        return a + b * batch
    moved = 2 * 4 * size * (machines - 1) / machines
    return a + b * batch / machines + wait + 2 * latency + 2 * moved * c + moved / bandwidth


def gaining(*what, batch, network):
    """(from how many machines on a tenth more gain less than 2 %, how much faster than one these are)"""
    last = 2 * batch + 1
    seconds = {m: predicted(*what, batch, m, network) for m in range(1, last + 1)}
    best = min(seconds, key=seconds.get)
    if best == 1:
        return 1, 1.0
    flat = (m for m in range(2, best) if seconds[m] < 1.02 * seconds[min(last, max(m + 1, round(1.1 * m)))])
    enough = next(flat, best)
    return (enough, seconds[1] / seconds[enough]) if seconds[enough] < seconds[1] else (1, 1.0)


def machines(models, steps):
    import tinymnist as tm

    sizes = {name: tm.models.MODELS[name]().size for name in models}
    print("ms a step of   parameters" + "".join(f"{n:>7} images" for n in SHARES) + "   = a + b n")
    compute, shares = {}, in_a_process("seconds_of_shares", steps, *models)
    for name in models:
        points = list(zip(SHARES, shares[name]))
        a, b = compute[name] = fitted(points)
        shown = "".join(f"{seconds * 1e3:14.2f}" for _, seconds in points)
        print(f"{name:13} {sizes[name]:11,}{shown}   {a * 1e3:.2f} ms + {b * 1e6:.1f} µs n", flush=True)
    found = in_a_process("exchanges", 50, workers=2)
    points = [(2 * 2 * 4 * n, max(result[str(n)] for result in found)) for n in SIZES]
    exchange = wait, c = fitted(points)
    print(f"\nan exchange between two workers: {wait * 1e3:.2f} ms + bytes / {1e-6 / c:,.0f} MB/s")
    print("  " + ", ".join(f"{moved:,} bytes {seconds * 1e3:.2f} ms" for moved, seconds in points))
    print(
        "\nms a step, batch 100  1 worker   2 workers (predicted)   bytes on the wire, 1 and 2 workers (8 · parameters)"
    )
    for name in models:
        seen = []
        for workers in (1, 2):
            before = sent()
            results = in_a_process("seconds_a_step", name, 100, steps, "dist_sync", workers=workers)
            seen.append((max(r["seconds"] for r in results) * 1e3, (sent() - before) / results[0]["steps"]))
        (one, first), (two, second) = seen
        guess = (compute[name][0] + 50 * compute[name][1] + wait + c * 16 * sizes[name]) * 1e3
        each = 8 * sizes[name]
        print(
            f"{name:18} {one:12.2f} {two:11.2f} {guess:12.2f} {first:17,.0f} {second:13,.0f}  ({each:,}, {2 * each:,})",
            flush=True,
        )
    print("\nmachines that still gain, and how many times as fast as one they are then")
    print(f"{'':20}" + "".join(f"{f'{name}, batch {batch}':>24}" for name in models for batch in (100, 1000)))
    for place, network in NETWORKS.items():
        cells = [
            gaining(compute[name], exchange, sizes[name], batch=batch, network=network)
            for name in models
            for batch in (100, 1000)
        ]
        print(f"{place:20}" + "".join(f"{f'{count}: {gain:.1f} times':>24}" for count, gain in cells))


def larger(steps):
    """Time an image and memory on 1, 10 and 100 times MNIST, as uncompressed files of noise, from the disk."""
    print("images          bytes   load s   first step s   µs an image   RSS above the start, MB")
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, 10, 100):
            where = Path(folder) / str(times)
            write(where, 60000 * times)
            words = [sys.executable, __file__, "--child-data", str(where), str(steps)]
            print(subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE).stdout, end="", flush=True)
            for file in where.iterdir():
                file.unlink()


def write(where, n):
    """The four files of a data set of n training images of noise, a test set of 1,000."""
    where.mkdir(parents=True)
    some = np.random.default_rng(0).integers(0, 256, (10000, 28, 28), np.uint8)
    for prefix, count in (("train", n), ("t10k", 1000)):
        with open(where / f"{prefix}-images-idx3-ubyte", "wb") as file:
            file.write(bytes([0, 0, 8, 3]) + np.array([count, 28, 28], ">u4").tobytes())
            for begin in range(0, count, len(some)):
                file.write(some[: count - begin].tobytes())
        with open(where / f"{prefix}-labels-idx1-ubyte", "wb") as file:
            file.write(bytes([0, 0, 8, 1]) + np.array([count], ">u4").tobytes())
            file.write((np.arange(count) % 10).astype(np.uint8).tobytes())


def memory(what):
    """Megabytes of this process: VmRSS now, VmHWM at its highest, pages of files included."""
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what)) / 1000


def child_data(where, steps):
    import tinymnist as tm

    tm.fit(tm.mlp(), tm.Optimizer("sgd", lr=0.1), tm.load("digits"), epochs=1)  # MXNet and the code, once
    base, began = memory("VmRSS"), time.perf_counter()
    data, times = tm.load(where), []
    loaded = time.perf_counter()

    def on_batch(run, examples):
        run.model.weights.wait_to_read()
        times.append(time.perf_counter())
        run.stop = len(times) > steps

    tm.fit(tm.mlp(), tm.Optimizer("sgd", lr=0.1), data, epochs=1, normalize=True, on_batch=on_batch)
    n, each = len(data.train.labels), float(np.percentile(np.diff(times), 25))
    print(
        f"{n:9,} {data.train.images.nbytes:13,} {loaded - began:8.2f} {times[0] - loaded:14.2f} {each * 1e4:13.2f} "
        f"{memory('VmHWM') - base:25.0f}"
    )


def main(argv=None):
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["--child"]:
        _, folder, function, *arguments = argv
        result = CHILDREN[function](*(int(word) if word.isdigit() else word for word in arguments))
        Path(folder, str(os.getpid())).write_text(json.dumps(result))
        return None
    if argv[:1] == ["--child-data"]:
        return child_data(argv[1], int(argv[2]))
    import tinymnist as tm

    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=200, metavar="N", help="how many are timed; default: 200")
    p.add_argument(
        "--models",
        nargs="+",
        choices=tm.models.MODELS,
        default=["softmax", "mlp", "lenet"],
        help="default: softmax mlp lenet",
    )
    p.add_argument("--data", action="store_true", help="measure larger data instead (5 GB of disk for a while)")
    args = p.parse_args(argv)
    if args.steps < 10:
        print(f"--steps must be 10 or more, of which the first five do not count, not {args.steps}", file=sys.stderr)
        return 2
    return larger(args.steps) if args.data else machines(args.models, args.steps)


if __name__ == "__main__":
    sys.exit(main())
