"""Saving a run and finding it again.

A run's directory holds history.json, what was printed, and two checkpoints, each a directory of its own:

    epoch-0003-batch-00128/model.params      the parameters, as Gluon's load_parameters reads them
                           optimizer.params  the rule's state vectors, where it has any
                           run.json          all else, the SHA-256 of those files, and one of itself

A checkpoint is written under another name, synced, read back, and then renamed: it is there whole or not at all. None
is written over: the same point again is a directory of its own, epoch-0003-batch-00128.1. Then older ones go.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

from tinymnist import models
from tinymnist.backend import mx, nd
from tinymnist.datasets.published import SHA256
from tinymnist.idx import DataError, replace_file
from tinymnist.runtime.files import discard, lock_directory, make_synced_directory, sync

VERSION = 1  # of this form
FORM = re.compile(r"epoch-(\d{4,})(?:-batch-(\d{5,}))?(?:\.(\d+))?")
MODELS = {make.__name__: make for make in models.MODELS.values()}


@contextlib.contextmanager
def lock_run_directory(directory, run_id):
    """A directory, created if it does not exist, into which only the run with this id saves until the block ends.

    Raises DataError if it cannot be written, another process saves there at this moment, or it holds another run.
    """
    with lock_directory(directory):
        there = list_checkpoints(directory)
        if there and run_id not in (state["id"] for state in map(read_state, there) if state):
            raise DataError(f"{directory}: holds another run; resume that one, or save into another directory")
        for leftover in (*Path(directory).glob(".epoch-*.part"), *Path(directory).glob("history.json.*.part")):
            discard(leftover)  # of a process that was killed: a live one would have the directory locked
        yield


def save_checkpoint(directory, run):
    """Writes a checkpoint of a run, and its history, into a directory that is held. -> the checkpoint's path

    DataError: it could not be written whole; those before it are as they were.
    """
    directory, at = Path(directory), run.position
    name = f"epoch-{at.epoch:04d}" + (f"-batch-{at.batch:05d}" if at.batch else "")
    again = [
        parse_name(path)[2] + 1 for path in list_checkpoints(directory) if parse_name(path)[:2] == (at.epoch, at.batch)
    ]
    final = directory / (f"{name}.{max(again)}" if again else name)
    beside = directory / f".{final.name}.part"
    try:
        make_synced_directory(beside)
        digests = {"model.params": write(beside / "model.params", run.model.parameters)}
        if run.optimizer.state:
            vectors = {str(i): vector for i, vector in enumerate(run.optimizer.state)}
            digests["optimizer.params"] = write(beside / "optimizer.params", vectors)
        with open(beside / "run.json", "wb") as stream:
            stream.write(seal({**describe_run(run), "sha256": digests}).encode())
        for path in (*beside.iterdir(), beside):
            sync(path)
        verify(beside)
        with replace_file(directory / "history.json") as stream:
            stream.write(json.dumps([dataclasses.asdict(epoch) for epoch in run.history], indent=1).encode())
        beside.rename(final)
        sync(directory)
    except (OSError, Damaged) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{directory}: the checkpoint cannot be written: {reason}; those before it are as they were"
        ) from error
    finally:
        discard(beside)
    others = [path for path in list_checkpoints(directory) if path != final]
    spare = next(filter(read_state, others), None)  # should the new one be damaged one day
    for path in others:
        if path != spare:
            discard(path)
    return final


def load(directory, model=None, device=None):
    """(model, state of its rule, all else) from the newest checkpoint that is whole; says on stderr which are damaged.

    A model that is not one of tinymnist's own is to be given.   DataError: there is none, or it is of another version
    """
    state, arrays, damaged = newest(directory)
    for error in damaged:
        print(f"{error}; the one before it is used", file=sys.stderr)
    if model is None:
        if state["model"] not in MODELS:
            raise DataError(f"{directory}: holds a model that is not one of tinymnist's own; give it as `model`")
        model = MODELS[state["model"]](**state["arguments"])
    model.mean, model.std = state["mean"], state["std"]
    saved = arrays["model.params"]
    model.allocate(device, next(iter(saved.values())).dtype)
    if {name: a.shape for name, a in saved.items()} != {name: a.shape for name, a in model.parameters.items()}:
        raise DataError(f"{directory}: holds the parameters of another model")
    for name, value in model.parameters.items():
        value[:] = saved[name].as_in_context(value.context)
    vectors = arrays.get("optimizer.params", {})
    return model, [vectors[str(i)] for i in range(len(vectors))], state


def newest(directory):
    """(state, {file: arrays}) of the newest checkpoint that is whole, and why not any after it: [Damaged]"""
    there, damaged = list_checkpoints(directory), []
    if not there:
        what = "holds no checkpoint" if os.path.isdir(directory) else "is no directory"
        raise DataError(f"{directory}: {what}; a run that was saved holds folders such as epoch-0001")
    for path in there:
        try:
            return *verify(path), damaged
        except Damaged as error:
            if not path.exists():  # somebody saves there, and this one had its day
                return newest(directory)
            damaged.append(error)
    raise DataError(f"{damaged[0]}; {directory} holds none that can be used")


class Damaged(Exception):
    """A checkpoint that is not as it was written, or of another version."""


def verify(path):
    """(state, {file: arrays}) of a checkpoint, every file of which was compared with its checksum."""
    try:
        text = (path / "run.json").read_bytes()
        state = json.loads(text)["run"]
        if state["version"] != VERSION:
            raise Damaged(
                f"{path}: was written by another version of tinymnist, in form {state['version']}, not {VERSION}"
            )
        if text != seal(state).encode():
            raise Damaged(f"{path / 'run.json'}: is damaged: its checksum is another")
        contents = {file: (path / file).read_bytes() for file in state["sha256"]}
        for file, content in contents.items():
            if hashlib.sha256(content).hexdigest() != state["sha256"][file]:
                raise Damaged(f"{path / file}: is damaged: its checksum is another")
        return state, {file: nd.load_frombuffer(content) for file, content in contents.items()}
    except OSError as error:
        raise Damaged(f"{path}: is damaged: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError, mx.MXNetError) as error:
        raise Damaged(f"{path / 'run.json'}: is damaged: it cannot be understood") from error


def read_state(path):
    """The state in a checkpoint, None where it is damaged."""
    with contextlib.suppress(Damaged):
        return verify(path)[0]


def list_checkpoints(directory):
    """The checkpoints in a directory, whole or not, the newest first."""
    try:
        return sorted(
            (path for path in Path(directory).iterdir() if parse_name(path) and path.is_dir()),
            key=parse_name,
            reverse=True,
        )
    except OSError:
        return []


def parse_name(path):
    """(epoch, batch, which of those with the same) by a checkpoint's name; None where it is no such name."""
    match = FORM.fullmatch(path.name)
    return match and tuple(int(number or 0) for number in match.groups())


def describe_run(run):
    """All of a run that is not an array, as JSON can hold it."""
    return {
        "version": VERSION,
        "id": run.id,
        "model": getattr(run.model, "name", None),
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
    """JSON of a state and of its SHA-256: one text and no other for a state, so that any changed byte is found."""
    text = json.dumps(state, sort_keys=True, indent=1)
    return json.dumps({"seal": hashlib.sha256(text.encode()).hexdigest(), "run": state}, sort_keys=True, indent=1)


def write(path, arrays):
    """Saves arrays and reads them back, as MXNet does not notice a full disk. -> the file's SHA-256"""
    arrays = {name: array.as_in_context(mx.cpu()) for name, array in arrays.items()}
    with contextlib.suppress(mx.MXNetError, KeyError, FileNotFoundError):
        nd.save(str(path), arrays)
        content = path.read_bytes()
        back = nd.load_frombuffer(content)
        if all(back[name].asnumpy().tobytes() == array.asnumpy().tobytes() for name, array in arrays.items()):
            return hashlib.sha256(content).hexdigest()
    free, size = shutil.disk_usage(path.parent).free, sum(array.size for array in arrays.values()) * 8
    code = errno.ENOSPC if free < size else errno.EIO
    raise OSError(code, os.strerror(code))
