"""Checkpoints: how a run is saved and how it is found again.

The directory of a run holds its results, history.json, and at most its last two checkpoints. Each is a directory, such
as this one after three epochs and 128 batches of the fourth:

    epoch-0003-batch-00128/model.params      the parameters; Gluon's load_parameters reads this file
                           optimizer.params  the state vectors of the update rule, if it has any
                           run.json          everything else, with the SHA-256 of the other files and of its own content

It is written under another name, synced to disk, read back and then renamed, so it is always complete. No checkpoint
is overwritten: the same point saved again is epoch-0003-batch-00128.1.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import struct
import sys
from pathlib import Path

import numpy as np

from tinymnist import models
from tinymnist.backend import mx, nd
from tinymnist.datasets.published import SHA256
from tinymnist.idx import DataError, replace_file
from tinymnist.optim import RULES, Optimizer
from tinymnist.runtime.files import discard, lock_directory, sync
from tinymnist.runtime.settings import Epoch, Settings

VERSION = 1  # of the format
NAME = re.compile(r"epoch-(\d{4,})(?:-batch-(\d{5,}))?(?:\.(\d+))?")
LARGEST = {"model.params": 1 << 30, "optimizer.params": 1 << 30, "run.json": 1 << 27}  # bytes
DTYPES = {0: "float32", 1: "float64", 2: "float16"}  # by MXNet's numbers
FIELDS = {  # the types of the fields in run.json
    str: ("id", "model", "rule", "data", "source", "where"),
    dict: ("hyper", "settings"),
    list: ("seen", "speed", "history"),
    int: ("examples", "epoch", "batch"),
    (int, float): ("mean", "std", "seconds"),
}
FIELD_ERRORS = (TypeError, ValueError, LookupError, AttributeError, OverflowError)  # what wrong fields raise
BUILDERS = {make.__name__: make for make in models.MODELS.values()}  # by the name in run.json


@contextlib.contextmanager
def lock_run_directory(directory, run_id):
    """Make `directory` and keep other runs from saving into it. Raises DataError if one is saving or has saved there.

    Yields the check of lock_directory.
    """
    with lock_directory(directory) as check:
        paths = list_checkpoints(directory)
        if paths and run_id not in [state["id"] for state in map(read_state, paths) if state]:
            raise DataError(f"{directory}: holds another or a damaged run; resume it, or save into another directory")
        for pattern in (".epoch-*.part", "history.json.*.part", "curves.png.*.part"):
            for leftover in Path(directory).glob(pattern):  # its process was killed: a living one would hold the lock
                discard(leftover)
        found = sorted(set(os.listdir(directory)) - {"history.json", "curves.png"})
        if found and not paths:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            print(f"{directory}: holds other files, which stay: {', '.join(found[:3])}{more}", file=sys.stderr)
        yield check


def save_checkpoint(directory, run, check):
    """Write a checkpoint and the history of a run into a locked directory, and return the checkpoint's path.

    `check` is that of lock_directory. Raises DataError if saving fails.
    """
    check()
    directory, position = Path(directory), run.position
    name = f"epoch-{position.epoch:04d}" + (f"-batch-{position.batch:05d}" if position.batch else "")
    points = map(parse_name, list_checkpoints(directory))
    numbers = [number for epoch, batch, number in points if (epoch, batch) == (position.epoch, position.batch)]
    name += f".{max(numbers) + 1}" if numbers else ""  # this point was saved before
    final = directory / name
    part = directory / f".{name}.{os.getpid()}.part"  # never another run's, even if the directory was replaced
    try:
        part.mkdir()
        states = {str(i): vector for i, vector in enumerate(run.optimizer.state)}
        files = {"model.params": run.model.parameters, "optimizer.params": states}
        digests = {file: write_arrays(part / file, arrays) for file, arrays in files.items() if arrays}
        (part / "run.json").write_bytes(seal({**describe_run(run), "sha256": digests}))
        for path in (*part.iterdir(), part):
            sync(path)
        read_checkpoint(part)
        check()
        with replace_file(directory / "history.json") as stream:
            stream.write(json.dumps([dataclasses.asdict(epoch) for epoch in run.history], indent=1).encode())
        part.rename(final)
        sync(directory)
    except (OSError, DataError, UnicodeError) as error:  # UnicodeError: MXNet takes names in UTF-8 only
        check()  # a directory that is gone explains the error better
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{directory}: no checkpoint can be written: {reason}; earlier ones are unchanged") from error
    finally:
        discard(part)
    others = [path for path in list_checkpoints(directory) if path != final]
    spare = next(filter(read_state, others), None)  # the newest undamaged one stays, in case the new one fails later
    check()
    for path in others:
        if path != spare:
            discard(path)
    return final


def load(directory, model=None):
    """Return (model, vectors, state) of the newest undamaged checkpoint: the rule's vectors, and "run" in run.json.

    A model that is not one of tinymnist's own must be given. Raises DataError if no checkpoint can be used.
    """
    state, arrays, damaged = newest(directory)
    for error in damaged:
        print(f"{error}; the checkpoint before it is used", file=sys.stderr)
    if model is None:
        if state["model"] not in BUILDERS:
            raise DataError(f"{directory}: holds a model that is not one of tinymnist's own; give it as `model`")
        try:
            model = BUILDERS[state["model"]](**state["arguments"])
        except (*FIELD_ERRORS, mx.MXNetError) as error:
            raise DataError(f"{directory}: its checkpoint cannot be understood: {str(error)[:200]}") from error
    model.mean, model.std = state["mean"], state["std"]
    saved = arrays.get("model.params", {})
    if {name: array.shape for name, array in saved.items()} != model.shapes:
        raise DataError(f"{directory}: holds the parameters of another model")
    model.allocate(dtype=next(iter(saved.values())).dtype)
    for name, value in model.parameters.items():
        value[:] = saved[name]
    vectors, count = arrays.get("optimizer.params", {}), RULES[state["rule"]].states
    if {name: vector.shape for name, vector in vectors.items()} != {str(i): (model.size,) for i in range(count)}:
        raise DataError(f"{directory}: holds the state of another rule or model")
    return model, [vectors[str(i)] for i in range(count)], state


def check_state(state):
    """Raise an error unless all fields have possible types and values. The file may come from a stranger."""
    for kind, names in FIELDS.items():
        for name in names:
            if not isinstance(state[name], kind) or isinstance(state[name], bool):
                raise ValueError(f"{name} is {str(state[name])[:40]!r}")
    if min(state["epoch"], state["batch"], state["examples"]) < 0:
        raise ValueError("epoch, batch and examples must be at least 0")
    if len(state["seen"]) != state["batch"]:
        raise ValueError(f"it has seen {len(state['seen'])} batches of {state['batch']}")
    if not (math.isfinite(state["mean"]) and 0 < state["std"] < math.inf):
        raise ValueError(f"mean is {state['mean']} and std {state['std']}")
    Settings(**state["settings"])
    Optimizer(state["rule"], **state["hyper"])
    epochs = [Epoch(**epoch) for epoch in state["history"]]
    rows = [*state["seen"], state["speed"]]  # of numbers; only lr may be None
    for epoch in epochs:
        plain = [x for name, x in vars(epoch).items() if name not in ("curve", "speed") and (name, x) != ("lr", None)]
        rows += [*epoch.curve, epoch.speed, plain]
    if not all(isinstance(number, (int, float)) for row in rows for number in row):
        raise ValueError("the history holds something that is not a number")
    if {len(row) for row in state["seen"]} - {3} or {len(row) for epoch in epochs for row in epoch.curve} - {2}:
        raise ValueError("a row of the history is too short or too long")


def newest(directory):
    """Return (state, {file: arrays}) of the newest undamaged checkpoint, and a list: what is wrong with later ones."""
    paths, damaged = list_checkpoints(directory), []
    if not paths:
        if (Path(directory) / "run.json").exists():
            raise DataError(f"{directory}: is a checkpoint; name the directory of its run, {Path(directory).parent}")
        found = "holds no checkpoint" if os.path.isdir(directory) else "is not a directory"
        raise DataError(f"{directory}: {found}; a saved run holds directories such as epoch-0001")
    for path in paths:
        try:
            return *read_checkpoint(path), damaged
        except DataError as error:
            if not path.exists():  # another process has replaced this checkpoint
                return newest(directory)
            damaged.append(error)
    raise DataError(f"{damaged[0]}; {directory} holds no checkpoint that can be used")


def read_checkpoint(path):
    """Return (state, {file: arrays}). Raises DataError unless format, fields and checksums are as expected."""
    try:
        text = read_file(path, "run.json")
        state = json.loads(text)["run"]
        if text != seal(state):
            raise DataError(f"{path / 'run.json'}: is damaged: its checksum is wrong")
        if state["version"] != VERSION:
            raise DataError(f"{path}: has format {state['version']}, of another version of tinymnist, not {VERSION}")
        check_state(state)
        contents = {file: read_file(path, file) for file in state["sha256"]}
        for file, content in contents.items():
            if hashlib.sha256(content).hexdigest() != state["sha256"][file]:
                raise DataError(f"{path / file}: is damaged: its checksum is wrong")
        return state, {file: read_arrays(content) for file, content in contents.items()}
    except (OSError, RecursionError, struct.error, *FIELD_ERRORS) as error:
        reason = getattr(error, "strerror", None) or f"it cannot be understood: {str(error)[:200]}"
        raise DataError(f"{path}: is damaged: {reason}") from error


def read_file(path, file):
    """The bytes of a file of a checkpoint. A pipe or a device, which would be read for ever, is refused."""
    if file not in LARGEST or not (path / file).is_file() or (path / file).stat().st_size > LARGEST[file]:
        raise DataError(f"{path}: is damaged: {str(file)[:40]!r} is not a file of a checkpoint")
    return (path / file).read_bytes()


def read_arrays(content):
    """{name: array} in the bytes of a file of nd.save. MXNet's own reader may take all memory if a length is wrong.

    The file has a magic number, 0, the number of arrays, the arrays, the number of names, the names. An array has a
    magic number, the kind of sparse storage (0: none), the number of dimensions, the shape, two numbers of its device,
    the type, the data.
    """
    stream, arrays = io.BytesIO(content), []

    def read(layout):
        return struct.unpack(f"<{layout}", stream.read(struct.calcsize(f"<{layout}")))

    _magic, _zero, count = read("3Q")
    for _ in range(count):
        _magic, sparse, dimensions = read("Iii")
        *shape, _device, _number, dtype = read(f"{dimensions}q3i")
        if sparse or min(shape, default=0) <= 0:
            raise ValueError("not an array of a checkpoint")
        size = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
        arrays.append(np.frombuffer(stream.read(size), DTYPES[dtype]).reshape(shape))
    (count,) = read("Q")
    names = [stream.read(*read("Q")).decode() for _ in range(count)]
    return {name: nd.array(array, mx.cpu(), array.dtype) for name, array in zip(names, arrays)}


def read_state(path):
    """The state in a checkpoint, or None if it is damaged."""
    with contextlib.suppress(DataError):
        return read_checkpoint(path)[0]


def list_checkpoints(directory):
    """The paths of all checkpoints, damaged or not, newest first."""
    try:
        paths = [path for path in Path(directory).iterdir() if parse_name(path) and path.is_dir()]
    except OSError:
        return []
    return sorted(paths, key=parse_name, reverse=True)


def parse_name(path):
    """(epoch, batch, how often this point was saved before), or None if this is not the name of a checkpoint."""
    match = NAME.fullmatch(path.name)
    return match and tuple(int(number or 0) for number in match.groups())


def describe_run(run):
    """Everything in a run that is not an array, for JSON."""
    return {
        "version": VERSION,
        "id": run.id,
        "model": run.model.name,
        "arguments": getattr(run.model, "arguments", None),
        "mean": run.model.mean,
        "std": run.model.std,
        "rule": run.optimizer.name,
        "hyper": run.optimizer.hyper,
        "settings": dataclasses.asdict(run.settings),
        "data": run.fingerprint,
        "source": run.data.source,
        "where": run.data.name if run.data.name in ("digits", *SHA256) else os.path.abspath(run.data.name),
        "examples": len(run.data.train.labels),
        **dataclasses.asdict(run.position),
        "history": [dataclasses.asdict(epoch) for epoch in run.history],
    }


def seal(state):
    """JSON of a state and its SHA-256. read_checkpoint makes it anew and compares, so every changed byte is noticed."""
    text = json.dumps(state, sort_keys=True, indent=1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"seal": digest, "run": state}, sort_keys=True, indent=1).encode()


def write_arrays(path, arrays):
    """Save arrays, and read them back because MXNet does not notice a full disk. Returns the SHA-256 of the file."""
    arrays = {name: array.as_in_context(mx.cpu()) for name, array in arrays.items()}
    with contextlib.suppress(mx.MXNetError):
        nd.save(str(path), arrays)
        content = path.read_bytes()
        written = nd.load_frombuffer(content)
        if all(written[name].asnumpy().tobytes() == array.asnumpy().tobytes() for name, array in arrays.items()):
            return hashlib.sha256(content).hexdigest()
    # It was not written: the disk is full or broken.
    free, size = shutil.disk_usage(path.parent).free, sum(array.size for array in arrays.values()) * 8  # bytes, at most
    code = errno.ENOSPC if free < size else errno.EIO
    raise OSError(code, os.strerror(code))
