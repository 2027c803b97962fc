"""Saving a run and finding it again.

A run's directory holds history.json, what was printed, and the two newest checkpoints, each a directory of its own:

    epoch-0003-batch-00128/model.params      the parameters, as Gluon's load_parameters reads them
                           optimizer.params  the rule's state vectors, where it has any
                           run.json          all else, and the SHA-256 of every file, itself included

A checkpoint is written under another name, synced, read back and compared, and then renamed: it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

from tinymnist import models
from tinymnist.backend import mx, nd
from tinymnist.files import DataError, replacing

VERSION = 1  # of this form
KEPT = 2  # should the newest be damaged, there is one before it
FORM = re.compile(r"epoch-(\d{4,})(?:-batch-(\d{5,}))?")


def save(directory, run):
    """Writes a checkpoint of a run, and its history.   DataError: it could not be written whole; earlier ones stay"""
    directory = Path(directory)
    name = f"epoch-{run.epoch:04d}" + (f"-batch-{run.batch:05d}" if run.batch else "")
    beside = directory / f".{name}.{os.getpid()}.part"
    try:
        beside.mkdir(parents=True)
        files = {"model.params": dict(run.model.parameters)}
        if run.optimizer.states:
            files["optimizer.params"] = {str(i): vector for i, vector in enumerate(run.optimizer.state)}
        digests = {file: write_arrays(beside / file, arrays) for file, arrays in files.items()}
        with replacing(beside / "run.json") as stream:
            stream.write(sealed({**description(run), "sha256": digests}).encode())
        sync(beside)
        if (directory / name).exists():  # the same point again, after going on from an earlier one
            (directory / name).rename(directory / f".{name}.{os.getpid()}.old.part")
        beside.rename(directory / name)
        sync(directory)
        with replacing(directory / "history.json") as stream:
            stream.write(json.dumps([dataclasses.asdict(epoch) for epoch in run.history], indent=1).encode())
    except (OSError, mx.MXNetError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[-1]
        raise DataError(
            f"{directory}: the checkpoint cannot be written: {reason}; earlier ones are as they were"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    for old in [*checkpoints(directory)[KEPT:], *directory.glob(".*.part")]:
        shutil.rmtree(old, ignore_errors=True)
    return directory / name


def load(directory, model=None):
    """(model, state of its rule, all else) from the newest checkpoint that is whole; says on stderr which are damaged.

    A model that is not one of tinymnist's own is to be given.   DataError: there is none, or it is of another version
    """
    content, folder = newest(directory)
    if model is None:
        if not hasattr(models, content["model"] or ""):
            raise DataError(f"{directory}: holds a model that is not one of tinymnist's own; give it as `model`")
        model = getattr(models, content["model"])(**content["arguments"])
    model.mean, model.std = content["mean"], content["std"]
    model.allocate()
    saved = nd.load(str(folder / "model.params"))
    shapes = {name: value.shape for name, value in model.parameters.items()}
    if {name: value.shape for name, value in saved.items()} != shapes:
        raise DataError(f"{folder / 'model.params'}: holds the parameters of another model")
    for name, value in model.parameters.items():
        value[:] = saved[name]
    vectors = nd.load(str(folder / "optimizer.params")) if "optimizer.params" in content["sha256"] else {}
    return model, [vectors[str(i)] for i in range(len(vectors))], content


def description(run):
    """All of a run that is not an array, as JSON can hold it."""
    return {
        "version": VERSION,
        "model": getattr(run.model, "name", None),
        "arguments": getattr(run.model, "arguments", None),
        "mean": run.model.mean,
        "std": run.model.std,
        "rule": run.optimizer.name,
        "hyper": run.optimizer.hyper,
        "settings": dataclasses.asdict(run.settings),
        "data": run.data.fingerprint,
        "source": run.data.source,
        "where": run.data.name,
        "epoch": run.epoch,
        "batch": run.batch,
        "seen": run.seen,
        "seconds": run.seconds,
        "speed": run.speed,
        "history": [dataclasses.asdict(epoch) for epoch in run.history],
    }


def sealed(state):
    """JSON whose first entry is the SHA-256 of the rest, in one form only, so that any changed byte is found."""
    text = json.dumps(state, sort_keys=True, indent=1)
    return json.dumps({"seal": hashlib.sha256(text.encode()).hexdigest(), "run": state}, sort_keys=True, indent=1)


def newest(directory):
    """(run.json, folder) of the newest checkpoint that is whole."""
    directory = Path(directory)
    candidates = checkpoints(directory)
    if not candidates:
        what = "holds no checkpoint" if directory.is_dir() else "is no directory"
        raise DataError(f"{directory}: {what}; a run that was saved holds folders such as epoch-0001")
    for folder in candidates:
        try:
            return verified(folder), folder
        except Damaged as error:
            print(f"{error}; looking for the one before it", file=sys.stderr)
    raise DataError(f"{directory}: all its checkpoints are damaged")


class Damaged(Exception):
    """A checkpoint that is not as it was written."""


def verified(folder):
    """The state in run.json, after every file of the checkpoint has been compared with its checksum."""
    try:
        text = (folder / "run.json").read_bytes()
        content = json.loads(text)
        state = content["run"]
        if text != sealed(state).encode():
            raise Damaged(f"{folder / 'run.json'}: is damaged: its checksum is another")
        if state["version"] != VERSION:
            raise DataError(
                f"{folder}: was written by another version of tinymnist, in form {state['version']}, not {VERSION}"
            )
        for file, digest in state["sha256"].items():
            if hashlib.sha256((folder / file).read_bytes()).hexdigest() != digest:
                raise Damaged(f"{folder / file}: is damaged: its checksum is another")
        return state
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"{folder}: is damaged: {error}") from error


def checkpoints(directory):
    """The folders of checkpoints in a directory, the newest first."""
    found = []
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            match = FORM.fullmatch(path.name)
            if match and path.is_dir():
                found.append((int(match[1]), int(match[2] or 0), path))
    return [path for *_, path in sorted(found, reverse=True)]


def write_arrays(path, arrays):
    """Saves arrays, reads them back (MXNet does not notice a full disk), syncs the file. -> its SHA-256"""
    nd.save(str(path), arrays)
    with open(path, "rb") as stream:
        content = stream.read()
        os.fsync(stream.fileno())
    back = nd.load_frombuffer(content)
    if any(back[name].asnumpy().tobytes() != array.asnumpy().tobytes() for name, array in arrays.items()):
        raise OSError(5, "what was written is not what is there")
    return hashlib.sha256(content).hexdigest()


def sync(directory):
    """Makes the names in a directory last."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
