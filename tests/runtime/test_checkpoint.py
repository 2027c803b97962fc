"""A checkpoint is complete or not there at all, damage is noticed, and nothing that was saved is lost."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import random
import re
import resource
import shutil
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
from runs import SMALL, bits, digits, make_run

import tinymnist as tm
from tinymnist.backend import nd
from tinymnist.experiments import recipes
from tinymnist.runtime import checkpoint

FILES = ["model.params", "optimizer.params", "run.json"]


@pytest.fixture(scope="module")
def data():
    return digits(100, 20)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "run"


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def save_epochs(data, directory, model="mlp", epochs=2):
    """Train and save a run. The checkpoints after its last two epochs stay."""
    return make_run(data, model, epochs=epochs).train(save=directory)


def reseal(path, **changes):
    """Change the state in a run.json, and give it a checksum that fits."""
    state = json.loads((path / "run.json").read_bytes())["run"]
    (path / "run.json").write_bytes(checkpoint.seal({**state, **changes}))


# What is saved


@pytest.mark.parametrize("model", SMALL)
def test_the_parameters_are_a_file_of_nd_save(model, data, directory, tmp_path):
    """Such a file is read by Gluon's load_parameters, as test_models.py shows for each model."""
    run = make_run(data, model)
    run.save(directory)
    nd.save(str(tmp_path / "expected"), run.model.parameters)
    assert (directory / "epoch-0000/model.params").read_bytes() == (tmp_path / "expected").read_bytes()


def test_a_run_directory_holds_the_history_and_two_checkpoints(data, directory):
    run = save_epochs(data, directory, epochs=3)
    assert names(directory) == ["epoch-0002", "epoch-0003", "history.json"]
    assert names(directory / "epoch-0003") == FILES
    history = json.loads((directory / "history.json").read_text())
    assert [epoch["test_accuracy"] for epoch in history] == [epoch.test_accuracy for epoch in run.history]


def test_a_run_is_saved_before_its_first_batch_and_before_an_epoch_is_reported(data, directory):
    """A run that is killed in its first epoch can be resumed; if printing fails, the epoch is not lost."""
    with pytest.raises(ZeroDivisionError):
        make_run(data).train(save=directory, on_batch=lambda run, examples: 1 / 0)
    assert names(directory) == ["epoch-0000", "history.json"]
    run = tm.resume(directory, data)
    with pytest.raises(ZeroDivisionError):
        run.train(save=directory, on_epoch=lambda run: 1 / 0)
    assert bits(tm.resume(directory, data)) == bits(make_run(data, epochs=1).train())


@pytest.mark.parametrize("batch", [3, 10])
def test_a_run_that_on_batch_saves_keeps_the_losses_of_all_batches(batch, data, directory):
    """The device has computed them, but the log interval in which they are read is not over."""

    def on_batch(run, examples):
        if run.position.batch == batch:
            run.save(directory)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make_run(data, log_interval=100).train(save=directory, on_batch=on_batch)
    expected = make_run(data, log_interval=100).train()
    assert bits(tm.resume(directory, data).train()) == bits(expected)


def test_a_directory_that_is_not_there_holds_no_checkpoints(directory):
    assert checkpoint.list_checkpoints(directory) == []


def test_a_name_that_mxnet_cannot_write_is_one_sentence(data, tmp_path):
    with pytest.raises(tm.DataError, match=r"no checkpoint can be written: .*surrogates not allowed"):
        make_run(data).save(os.fsdecode(bytes(tmp_path / "run-") + b"\xff"))


def test_several_workers_save_only_where_all_have_read_the_losses(data, directory):
    def on_batch(run, examples):
        if run.position.batch in (4, 6):
            run.save(directory)

    run = make_run(data, log_interval=4)
    run.exchange.workers = 2  # the other one does nothing, and would not know that it must read
    with pytest.raises(ValueError, match="every log_interval batches, or by save_every"):
        run.train(on_batch=on_batch)
    assert [path.name for path in checkpoint.list_checkpoints(directory)] == ["epoch-0000-batch-00004"]


def test_the_same_point_saved_again_is_a_newer_checkpoint(data, directory):
    run = make_run(data)
    for name in ("epoch-0000", "epoch-0000.1", "epoch-0000.2"):
        run.model.weights[:] += 1
        run.save(directory)
        assert name in names(directory) and bits(tm.resume(directory, data)) == bits(run)
    assert names(directory) == ["epoch-0000.1", "epoch-0000.2", "history.json"]


def test_a_directory_may_have_any_name_and_be_a_link(data, tmp_path):
    place, link = tmp_path / "a b" / "c=d?e#f%20[x]*" / "é 数" / "run.part", tmp_path / "link"
    run = save_epochs(data, place)
    assert bits(tm.resume(place, data)) == bits(run)
    link.symlink_to(place)
    tm.resume(link, data, epochs=3).train(save=link)
    assert names(place) == ["epoch-0002", "epoch-0003", "history.json"]


# Damage


def flip_a_bit(file, rng):
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


HARM = {
    "a flipped bit": (flip_a_bit, 134),
    "cut": (lambda file, rng: os.truncate(file, rng.randrange(file.stat().st_size)), 17),
    "empty": (lambda file, rng: os.truncate(file, 0), 1),
    "longer": (lambda file, rng: file.write_bytes(file.read_bytes() + b"\n"), 1),
    "of another checkpoint": (lambda file, rng: shutil.copy(file.parents[1] / "epoch-0001" / file.name, file), 1),
    "missing": (lambda file, rng: file.unlink(), 1),
    "a directory": (lambda file, rng: (file.unlink(), file.mkdir()), 1),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_file_is_noticed_and_its_checkpoint_replaced(harm, name, data, directory, capsys):
    """The user is told so in one line, the checkpoint before is used, and the damaged one is not in the way."""
    expected = bits(save_epochs(data, directory))
    file, rng = directory / "epoch-0002" / name, random.Random(0)
    content, (damage, times) = file.read_bytes(), HARM[harm]
    for _ in range(times):
        file.write_bytes(content)
        damage(file, rng)
        run = tm.resume(directory, data)
        error = capsys.readouterr().err
        assert run.position.epoch == 1
        assert "epoch-0002" in error and "is damaged" in error and error.count("\n") == 1
    assert bits(run.train(save=directory)) == expected == bits(tm.resume(directory, data))
    assert names(directory) == ["epoch-0001", "epoch-0002.1", "history.json"]


def test_without_a_usable_checkpoint_resuming_is_refused(data, directory):
    for place, found in ((directory, "is not a directory"), (directory.parent, "holds no checkpoint")):
        with pytest.raises(tm.DataError, match=f"{found}; a saved run holds directories such as epoch-0001"):
            tm.resume(place, data)
    save_epochs(data, directory)
    for content in (b"[" * 100_000, b"[]", b"{}", b"\xff"):
        for path in directory.glob("epoch-*/run.json"):
            path.write_bytes(content)
        with pytest.raises(tm.DataError, match=r"epoch-0002: is damaged.*; .* holds no checkpoint that can be used"):
            tm.resume(directory, data)


def test_no_flipped_bit_looks_like_another_version(data, directory):
    path = make_run(data).save(directory)
    content = (path / "run.json").read_bytes()
    digit = content.index(b'"version": 1') + len('"version": ')
    for bit in range(8):
        changed = bytes([content[digit] ^ 1 << bit])
        (path / "run.json").write_bytes(content[:digit] + changed + content[digit + 1 :])
        with pytest.raises(tm.DataError, match="is damaged"):
            checkpoint.read_checkpoint(path)


def test_another_format_is_neither_read_nor_removed(data, directory):
    make_run(data).save(directory)
    reseal(directory / "epoch-0000", version=2)
    with pytest.raises(tm.DataError, match="epoch-0000: has format 2, of another version of tinymnist, not 1"):
        tm.resume(directory, data)
    with pytest.raises(tm.DataError, match="holds another or a damaged run"):
        make_run(data).save(directory)


def test_only_our_own_models_are_built_by_name(data, directory):
    make_run(data).save(directory)
    for name in ("functools", "record_arguments", "MODELS", "Sequential"):
        reseal(directory / "epoch-0000", model=name)
        with pytest.raises(tm.DataError, match="not one of tinymnist's own"):
            tm.resume(directory, data)


EPOCH = {name: [] if name in ("curve", "speed") else 1 for name in tm.runtime.settings.Epoch.__annotations__}


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {name: value}
            for name in ("settings", "hyper", "history", "seen", "epoch")
            for value in (None, "x", [1], {"a": 1})
        ),
        *({name: value} for name in ("mean", "std") for value in ("1", float("nan"), float("inf"))),
        *({name: []} for name in ("model", "rule", "where", "data")),
        {"model": None},
        {"seen": [[10, 0.5, 3]]},
        {"std": 0},
        {"source": 5},
        {"batch": -1},
        {"arguments": {"hidden": 5}},
        {"arguments": {"hidden": [5] * 1000}},
        {"source": 5},
        {"history": [{"epoch": 1}]},
        *({"history": [{**EPOCH, "loss": value}]} for value in (None, [], [[0.5]], "0.5")),
        {"seen": [[10, "0.5", None]]},
        {"settings": {"device": ",".join(f"cpu:{i}" for i in range(999)), "epochs": "3"}},
        {"sha256": {}},
        {"sha256": {"/dev/zero": ""}},
        {"sha256": {"../../../etc/passwd": ""}},
        {"sha256": ["model.params"]},
    ],
    ids=str,
)
def test_a_checkpoint_with_impossible_fields_is_a_sentence(changes, data, directory):
    """Whoever makes one can make the checksums fit, too."""
    make_run(data, "mlp").save(directory)
    reseal(directory / "epoch-0000", **changes)
    with pytest.raises(tm.DataError):
        tm.resume(directory, data)
    with pytest.raises(tm.DataError):
        recipes.resume_run(directory, "digits")


def other_numbers(content, begin, *numbers, kind="<Q"):
    """The content of a file with other numbers at one place of it"""
    new = b"".join(struct.pack(kind, number) for number in numbers)
    return content[:begin] + new + content[begin + len(new) :]


MXNET = {  # contents of model.params that MXNet's own reader takes, or takes gigabytes for
    "no arrays": lambda content: content[:16] + bytes(16),
    "no names": lambda content: content[: content.index(b"0.weight") - 16] + bytes(8),
    "many arrays": lambda content: other_numbers(content, 16, len(content) * 1000),
    "many names": lambda content: other_numbers(content, content.index(b"0.weight") - 16, len(content) * 1000),
    "a shape of 2^64 numbers": lambda content: other_numbers(content, 36, 1 << 32, 1 << 32),
    "a negative shape": lambda content: other_numbers(content, 36, -10, -784, kind="<q"),
    "a thousand million dimensions": lambda content: other_numbers(content, 32, 10**9, kind="<I"),
    "whole numbers": lambda content: other_numbers(content, 60, 4, kind="<I"),
    "an unknown type": lambda content: other_numbers(content, 60, 99, kind="<I"),
    "a long name": lambda content: other_numbers(content, content.index(b"0.weight") - 8, 1 << 63),
}


@pytest.mark.parametrize("harm", MXNET)
@pytest.mark.parametrize("name", FILES[:2])
def test_arrays_with_impossible_headers_are_a_sentence_and_take_no_memory(harm, name, data, directory):
    make_run(data).save(directory)
    path = directory / "epoch-0000"
    content = MXNET[harm]((path / "model.params").read_bytes())
    (path / name).write_bytes(content)
    digests = {file: hashlib.sha256((path / file).read_bytes()).hexdigest() for file in FILES[:2]}
    reseal(path, sha256=digests)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(tm.DataError, match=r"epoch-0000: is damaged: it cannot be understood|holds the .* of another"):
        tm.resume(directory, data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


@pytest.mark.parametrize("kind", ["csr", "row_sparse"])
def test_sparse_arrays_are_a_sentence(kind, data, directory):
    run = make_run(data)
    run.save(directory)
    path = directory / "epoch-0000"
    arrays = {name: array.tostype(kind) if array.ndim == 2 else array for name, array in run.model.parameters.items()}
    nd.save(str(path / "model.params"), arrays)
    digests = {file: hashlib.sha256((path / file).read_bytes()).hexdigest() for file in FILES[:2]}
    reseal(path, sha256=digests)
    with pytest.raises(tm.DataError, match="epoch-0000: is damaged: it cannot be understood"):
        tm.resume(directory, data)


def test_a_huge_file_in_a_checkpoint_is_not_read(data, directory):
    make_run(data).save(directory)
    for name in reversed(FILES):
        os.truncate(directory / "epoch-0000" / name, 1 << 40)  # takes no space on the disk
        with pytest.raises(tm.DataError, match=f"'{name}' is not a file of a checkpoint"):
            tm.resume(directory, data)
        shutil.rmtree(directory)
        make_run(data).save(directory)


def test_a_long_name_in_a_checkpoint_is_cut(data, directory):
    make_run(data).save(directory)
    reseal(directory / "epoch-0000", settings={"x" * 10**6: 1})
    with pytest.raises(tm.DataError, match=r"cannot be understood: .*xxx") as caught:
        tm.resume(directory, data)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_or_a_device_in_a_checkpoint_is_not_read(name, data, directory):
    make_run(data).save(directory)
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (directory / "epoch-0000" / name).unlink()
        make(directory / "epoch-0000" / name)
        with pytest.raises(tm.DataError, match="is damaged: "):
            tm.resume(directory, data)


def test_a_pickle_is_never_run(data, directory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, content = directory / "epoch-0000", b"cos\nmkdir\n(S'harm'\ntR."  # pickle.loads would make a directory
    make_run(data).save(directory)
    for name in FILES[:2]:
        (path / name).write_bytes(content)
    reseal(path, sha256=dict.fromkeys(FILES[:2], hashlib.sha256(content).hexdigest()))
    for _ in range(2):
        with pytest.raises(tm.DataError, match="is damaged: it cannot be understood"):
            tm.resume(directory, data)
        (path / "run.json").write_bytes(content)
    assert not os.path.exists("harm")
    sources = "".join(path.read_text("utf-8") for path in Path(tm.__file__).parent.rglob("*.py"))
    assert not re.search(r"import (pickle|marshal)|\beval\(", sources)


# Disks that fail, processes that are killed


class Killed(BaseException):
    """Nothing in tinymnist catches this, and nothing works after it."""


CALLS = {  # that read or write files
    os: ["fsync", "replace"],
    Path: ["mkdir", "rename", "read_bytes", "write_bytes"],
    nd: ["save"],
    checkpoint: ["seal", "replace_file", "discard"],
}


def fail_at_call(patch, number, error):
    """Make one of the CALLS raise `error`, and all later ones if the process is killed. Returns the names of calls."""
    made, killed = [], isinstance(error, Killed)

    def watch(original, name):
        def call(*args, **kwargs):
            made.append(name)
            if (killed and len(made) >= number) or (len(made) == number and name != "discard"):
                raise error  # discard catches every OSError itself
            return original(*args, **kwargs)

        return call

    for owner, names in CALLS.items():
        for name in names:
            patch.setattr(owner, name, watch(getattr(owner, name), name))
    return made


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "broken"), Killed("")], ids=repr)
def test_saving_may_fail_or_be_killed_at_any_call(error, data, tmp_path, monkeypatch):
    """The old state or the new one is found, and then saving succeeds. A failure is one sentence and leaves nothing."""
    run, outcomes = save_epochs(data, tmp_path / "before", "softmax"), []
    old = bits(run)
    run.model.weights[:] += 1
    new = bits(run)
    for number in itertools.count(1):
        directory, refused = shutil.copytree(tmp_path / "before", tmp_path / str(number)), False
        with monkeypatch.context() as patch:
            calls = fail_at_call(patch, number, error)
            try:
                run.save(directory)
            except (tm.DataError, Killed) as caught:
                refused = True
                assert error.args[-1] in str(caught) and "\n" not in str(caught)
        if len(calls) < number:
            break
        found = bits(tm.resume(directory, data))
        assert (found == new and "rename" in calls) or (found == old and refused), calls
        assert isinstance(error, Killed) or not list(directory.glob("*.part")), calls
        outcomes.append("old" if found == old else "new")
        run.save(directory)
        assert bits(tm.resume(directory, data)) == new
        assert len(names(directory)) == 3, calls
    assert outcomes.count("old") > 15 and outcomes.count("new") > 3
    order = [name for name, _ in itertools.groupby(calls[calls.index("write_bytes") :])]
    assert order[:5] == ["write_bytes", "fsync", "read_bytes", "seal", "read_bytes"]  # written, synced and read back
    assert order[5:10] == ["replace_file", "fsync", "replace", "rename", "fsync"]  # the history; then the checkpoint


@pytest.fixture
def disk(tmp_path):
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def refuse(run, directory, data, failure, sentence):
    """While `failure` is active, saving fails with this sentence and changes nothing. After it, saving succeeds."""
    run.save(directory)
    before = bits(run)
    run.model.weights[:] += 1
    with failure, pytest.raises(tm.DataError, match=f"no checkpoint can be written: {sentence}; earlier ones are un"):
        run.save(directory)
    assert names(directory) == ["epoch-0000", "history.json"]
    assert bits(tm.resume(directory, data)) == before
    run.save(directory)
    assert bits(tm.resume(directory, data)) == bits(run)


@contextlib.contextmanager
def fill(disk, left):
    """Leave only so many KiB free."""
    with open(disk / "ballast", "wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, shutil.disk_usage(disk).free - (left << 10))
    yield
    (disk / "ballast").unlink()


@contextlib.contextmanager
def limit_file_sizes(size):
    """Like a full disk, for users who cannot mount one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("left", [0, 4, 8, 100, 400, 424, 428, 432, 800, 848])
def test_a_full_disk_is_noticed(left, data, disk):
    """The checkpoint has two files of 428 KiB."""
    refuse(make_run(data, "mlp", arguments={}), disk / "run", data, fill(disk, left), "No space left on device")


@pytest.mark.parametrize("size", [0, 1, 100, 1000, 5000, 31_000])
def test_a_file_that_cannot_be_written_completely_is_noticed(size, data, directory):
    """The file of the parameters has 31 KB."""
    refuse(make_run(data), directory, data, limit_file_sizes(size), "[^:]*")


def test_arrays_are_read_back(data, directory):
    """MXNet writes other numbers, and reports no error."""
    save = nd.save
    wrong = mock.patch.object(nd, "save", lambda path, arrays: save(path, {n: a + 1e-6 for n, a in arrays.items()}))
    refuse(make_run(data, "mlp"), directory, data, wrong, "Input/output error")


def test_a_read_only_disk_is_refused_before_the_first_batch(data, disk):
    run = make_run(data, epochs=1).train(save=disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for place in (disk / "run", disk / "other"):
        again = tm.resume(disk / "run", data, epochs=2)
        with pytest.raises(tm.DataError, match="nothing can be saved there: Read-only file system"):
            again.train(save=place)
        assert again.position.batch == 0
    assert bits(tm.resume(disk / "run", data)) == bits(run)


@pytest.mark.parametrize("name, reason", [("file", "File exists"), ("file/run", "Not a directory")])
def test_a_path_that_cannot_be_a_directory_is_refused(name, reason, data, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(tm.DataError, match=f"{name}: nothing can be saved there: {reason}"):
        make_run(data).train(save=tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


# Several runs and processes


def test_two_runs_cannot_save_into_one_directory(data, directory):
    first, second = make_run(data), make_run(data)

    def refuse_second(sentence):
        for save in (second.save, lambda place: second.train(save=place)):
            with pytest.raises(tm.DataError, match=sentence):
                save(directory)

    def on_batch(run, examples):
        refuse_second("another run is being saved there at this moment")
        run.save(directory)  # it has the lock

    first.train(save=directory, on_batch=on_batch)
    refuse_second("holds another or a damaged run; resume it, or save into another directory")
    assert second.position.batch == 0
    assert names(directory) == ["epoch-0001-batch-00010", "epoch-0002", "history.json"]
    assert bits(tm.resume(directory, data)) == bits(first)


def test_one_run_may_be_saved_into_two_directories(data, directory, tmp_path):
    save_epochs(data, directory, epochs=1)
    tm.resume(directory, data, epochs=2).train(save=tmp_path / "branch")
    assert [tm.resume(place, data).position.epoch for place in (directory, tmp_path / "branch")] == [1, 2]
    tm.resume(tmp_path / "branch", data).save(directory)  # it is the same run
    assert names(directory) == ["epoch-0001", "epoch-0002", "history.json"]


def test_an_earlier_state_does_not_remove_a_later_one(data, directory):
    early = make_run(data, epochs=1).train(save=directory)
    late = tm.resume(directory, data, epochs=3).train(save=directory)
    early.save(directory)
    assert bits(tm.resume(directory, data)) == bits(late)


def test_what_a_killed_process_left_is_removed_and_nothing_else(data, directory):
    make_run(data).save(directory)
    mine = ["notes.txt", "history.json.bak", "mine.part", "epoch-x", "epoch-1", "epoch-0009", "model.params"]
    for name in (*mine, "history.json.77-abcd.part", "curves.png.0123456789ab.part"):
        (directory / name).touch()
    for name in (".epoch-0001.part", ".epoch-0002-batch-00003.1.part"):
        (directory / name).mkdir()
        (directory / name / "model.params").write_text("half of it")
    tm.resume(directory, data).save(directory)
    assert names(directory) == sorted(["epoch-0000", "epoch-0000.1", "history.json", *mine])


def move(path):
    path.rename(path.with_name("moved"))


def retarget(path):
    path.unlink()
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("harm", [move, shutil.rmtree, retarget, Path.unlink])
def test_a_run_never_saves_into_a_directory_that_it_has_not_locked(harm, inside, data, directory, monkeypatch):
    """Its own is moved, removed or replaced during the run, and another run may save at the old path by then."""
    (directory.parent / "elsewhere").mkdir()
    if harm in (retarget, Path.unlink):
        (directory.parent / "real").mkdir()
        directory.symlink_to(directory.parent / "real")
    others = []

    def on_batch(run, examples):
        if run.position.batch == 5:
            harm(directory)
            if harm is move:
                others.append(save_epochs(data, directory))

    if inside:  # the path is relative
        monkeypatch.chdir(directory.parent)
    with pytest.raises(tm.DataError, match="run: was moved, removed or replaced during the run; nothing more is saved"):
        make_run(data, epochs=1).train(save="run" if inside else directory, on_batch=on_batch)
    assert names(directory.parent / "elsewhere") == []
    for other in others:
        assert names(directory) == ["epoch-0001", "epoch-0002", "history.json"]
        assert bits(tm.resume(directory, data)) == bits(other)


def test_a_run_whose_working_directory_is_removed_ends_with_a_sentence(data, directory, monkeypatch):
    directory.mkdir()
    monkeypatch.chdir(directory)
    with pytest.raises(tm.DataError, match="was moved, removed or replaced"):
        make_run(data, epochs=1).train(save="run", on_batch=lambda run, _: shutil.rmtree(directory, ignore_errors=True))


def test_a_directory_replaced_while_a_checkpoint_is_written_is_not_cleaned(data, directory, monkeypatch):
    """The check before old checkpoints are removed sees it."""
    run, sync = save_epochs(data, directory), checkpoint.sync

    def replace(path):
        sync(path)
        if path == directory:  # the last step of writing
            monkeypatch.setattr(checkpoint, "sync", sync)
            move(directory)
            save_epochs(data, directory)

    monkeypatch.setattr(checkpoint, "sync", replace)
    with pytest.raises(tm.DataError, match="was moved, removed or replaced"):
        run.save(directory)
    assert names(directory) == ["epoch-0001", "epoch-0002", "history.json"]


@pytest.mark.parametrize("step", ["mkdir", "seal", "read_checkpoint", "rename"])
def test_a_directory_replaced_at_any_step_of_saving_is_not_changed(step, data, directory, monkeypatch):
    """Another run saves there. Its checkpoints and its half-written one stay, and no other joins them."""
    run, other = save_epochs(data, directory), save_epochs(data, directory.with_name("other"))
    half = directory.with_name("other") / f".epoch-0002.1.{os.getpid() + 1}.part"
    half.mkdir()
    before = names(half.parent)
    owner = Path if step in ("mkdir", "rename") else checkpoint
    original = getattr(owner, step)

    def replace(*args, **options):
        monkeypatch.setattr(owner, step, original)
        os.rename(directory, directory.with_name("moved"))
        os.rename(directory.with_name("other"), directory)
        return original(*args, **options)

    with run.lock(directory):
        monkeypatch.setattr(owner, step, replace)
        with pytest.raises(tm.DataError, match="run: was moved, removed or replaced"):
            run.save(directory)
    assert names(directory) == before
    assert bits(tm.resume(directory, data)) == bits(other)


@pytest.mark.parametrize("name", [".epoch-0007.part", "epoch-0000.1"])
def test_a_link_to_a_directory_is_removed_and_not_what_it_leads_to(name, data, directory, tmp_path):
    run, target = make_run(data), tmp_path / "target"
    run.save(directory)
    shutil.copytree(directory / "epoch-0000", target)
    (directory / name).symlink_to(target)
    for _ in range(2):
        run.save(directory)
    assert len(names(directory)) == 3 and not any(path.is_symlink() for path in directory.iterdir())
    assert names(target) == FILES


def test_nothing_is_written_through_a_link(data, directory, tmp_path):
    (tmp_path / "target").mkdir()

    def on_batch(run, examples):
        if run.position.batch == 5:
            (directory / f".epoch-0001.{os.getpid()}.part").symlink_to(tmp_path / "target")

    with pytest.raises(tm.DataError, match="no checkpoint can be written: File exists"):
        make_run(data).train(save=directory, on_batch=on_batch)
    assert names(tmp_path / "target") == [] and names(directory) == ["epoch-0000", "history.json"]


def test_other_files_in_the_directory_of_a_new_run_are_named_and_stay(data, directory, capsys):
    directory.mkdir()
    mine = [f"{i}.txt" for i in range(5)]
    for name in mine:
        (directory / name).touch()
    run = make_run(data, epochs=1).train(save=directory)
    assert capsys.readouterr().err == f"{directory}: holds other files, which stay: 0.txt, 1.txt, 2.txt and 2 more\n"
    run.save(directory)
    assert capsys.readouterr().err == "" and set(mine) < set(names(directory))


WRITER = """
import sys
from runs import digits, make_run
make_run(digits(100, 20), epochs=10, log_interval=50).train(save=sys.argv[1], save_every=1)
"""


def test_a_run_can_be_read_while_another_process_saves_it(data, directory):
    """The process saves a hundred checkpoints. Each that is found is complete, and none is older than the last."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    writer = subprocess.Popen([sys.executable, "-c", WRITER, directory], env={**os.environ, "PYTHONPATH": path})
    try:
        seen = []
        while writer.poll() is None:
            time.sleep(0.001)
            if checkpoint.list_checkpoints(directory):
                state, arrays, damaged = checkpoint.newest(directory)
                assert not damaged and arrays["model.params"]["0.weight"].shape == (10, 784)
                seen.append((state["epoch"], state["batch"]))
                with pytest.raises(tm.DataError, match=r"being saved there|another or a damaged run"):
                    make_run(data).save(directory)
    finally:
        writer.kill()
    assert writer.wait() == 0
    assert seen == sorted(seen) and len(set(seen)) > 20
    assert tm.resume(directory, data).position.epoch == 10


def test_a_checkpoint_that_was_replaced_meanwhile_is_not_called_damaged(data, directory, monkeypatch):
    save_epochs(data, directory)
    lists = iter([[directory / "epoch-0000"], checkpoint.list_checkpoints(directory)])
    monkeypatch.setattr(checkpoint, "list_checkpoints", lambda directory: next(lists))
    state, _, damaged = checkpoint.newest(directory)
    assert state["epoch"] == 2 and not damaged


def test_a_file_system_may_be_unable_to_lock_and_to_sync_directories(data, directory, monkeypatch):
    fsync = os.fsync

    def refuse(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setattr(os, "fsync", lambda file: (refuse if stat.S_ISDIR(os.fstat(file).st_mode) else fsync)(file))
    run = save_epochs(data, directory)
    assert bits(tm.resume(directory, data)) == bits(run)
