"""A checkpoint is complete or not there at all, damage is noticed, and nothing that was saved is lost."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import pickle
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
from runs import SMALL, bits, digits, make_run

import tinymnist as tm
from tinymnist.backend import nd
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
    state = json.loads((directory / "epoch-0003/run.json").read_text())["run"]
    assert (state["model"], state["rule"], state["epoch"]) == ("mlp", "adagrad", 3)
    assert state["arguments"]["hidden"] == list(SMALL["mlp"]["hidden"]) and state["where"] == "digits"
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


def resume_the_first(data, directory, capsys):
    """epoch-0002 is damaged: the user is told so in one line, and epoch-0001 is used."""
    run = tm.resume(directory, data)
    error = capsys.readouterr().err
    assert run.position.epoch == 1
    assert "epoch-0002" in error and "is damaged" in error and error.count("\n") == 1
    return run


def flip_a_bit(content, rng):
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def cut_it(content, rng):
    return content[: rng.randrange(len(content))]


@pytest.mark.parametrize(
    "times, files, harm",
    [(200, FILES[:2], flip_a_bit), (200, FILES[2:], flip_a_bit), (50, FILES, cut_it), (3, FILES, lambda *_: b"")],
)
def test_damage_is_noticed_wherever_it_is(times, files, harm, data, directory, capsys):
    run, rng = save_epochs(data, directory), random.Random(0)
    for number in range(times):
        file = directory / "epoch-0002" / files[number % len(files)]
        content = file.read_bytes()
        file.write_bytes(harm(content, rng))
        resume_the_first(data, directory, capsys)
        file.write_bytes(content)
    assert bits(tm.resume(directory, data)) == bits(run)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["missing", "longer", "a directory", "another's"])
def test_a_wrong_file_is_noticed_and_replaced(name, harm, data, directory, capsys):
    before = bits(save_epochs(data, directory))
    file = directory / "epoch-0002" / name
    if harm == "longer":
        file.write_bytes(file.read_bytes() + b"\n")
    elif harm == "another's":
        file.write_bytes((directory / "epoch-0001" / name).read_bytes())
    else:
        file.unlink()
    if harm == "a directory":
        file.mkdir()
    run = resume_the_first(data, directory, capsys)
    assert bits(run.train(save=directory)) == before == bits(tm.resume(directory, data))
    assert names(directory) == ["epoch-0001", "epoch-0002.1", "history.json"]


def test_without_a_usable_checkpoint_resuming_is_refused(data, directory):
    for place, found in ((directory, "is not a directory"), (directory.parent, "holds no checkpoint")):
        with pytest.raises(tm.DataError, match=f"{found}; a saved run holds directories such as epoch-0001"):
            tm.resume(place, data)
    save_epochs(data, directory)
    for path in directory.glob("epoch-*/run.json"):
        path.write_bytes(b"[" * 100_000)
    with pytest.raises(tm.DataError, match=r"epoch-0002: is damaged.*; .* holds no checkpoint that can be used"):
        tm.resume(directory, data)


def test_another_format_is_neither_read_nor_removed(data, directory):
    make_run(data).save(directory)
    reseal(directory / "epoch-0000", version=2)
    with pytest.raises(tm.DataError, match="epoch-0000: has format 2, of another version of tinymnist, not 1"):
        tm.resume(directory, data)
    with pytest.raises(tm.DataError, match="holds another run"):
        make_run(data).save(directory)


def test_only_the_four_models_are_built_by_name(data, directory):
    make_run(data).save(directory)
    for name in ("functools", "record_arguments", "MODELS", "Sequential", None):
        reseal(directory / "epoch-0000", model=name)
        with pytest.raises(tm.DataError, match="not one of tinymnist's own"):
            tm.resume(directory, data)


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_a_pickle_is_never_run(data, directory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(data).save(directory)
    path, content = directory / "epoch-0000", pickle.dumps(Harm())
    for name in FILES[:2]:
        (path / name).write_bytes(content)
    reseal(path, sha256=dict.fromkeys(FILES[:2], hashlib.sha256(content).hexdigest()))
    for _ in range(2):
        with pytest.raises(tm.DataError, match="is damaged: it cannot be understood"):
            tm.resume(directory, data)
        (path / "run.json").write_bytes(content)
    assert not os.path.exists("harm")
    sources = "".join(path.read_text("utf-8") for path in Path(tm.__file__).parent.rglob("*.py"))
    assert not any(word in sources for word in ("pickle", "marshal", "eval("))


# Disks that fail, processes that are killed


class Killed(BaseException):
    """Nothing in tinymnist catches this, and nothing works after it."""


CALLS = [
    *((os, name) for name in ("fsync", "replace")),
    *((Path, name) for name in ("mkdir", "rename", "read_bytes", "write_bytes")),
    *((checkpoint, name) for name in ("seal", "replace_file", "discard")),
    (nd, "save"),
]


def fail_at_call(patch, number, error):
    """Make call `number` of all CALLS raise `error`, and every later call if the process is killed there.

    Returns a list to which the name of each call is added. An OSError in discard is always caught, so it has none.
    """
    made = []

    def watch(original, name):
        def call(*args, **kwargs):
            made.append(name)
            fails = len(made) >= number if isinstance(error, Killed) else len(made) == number and name != "discard"
            if fails:
                raise error
            return original(*args, **kwargs)

        return call

    for owner, name in CALLS:
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


@pytest.mark.parametrize("left", [0, 4, 8, 100, 400, 424, 428, 432, 800, 848])
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


@pytest.mark.parametrize(
    "name, reason", [("file", "File exists"), ("file/run", "Not a d"), ("locked/run", "Permission")]
)
def test_a_place_where_nothing_can_be_saved_is_refused(name, reason, data, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "locked").mkdir(mode=0o500)
    if "locked" in name and os.geteuid() == 0:
        pytest.skip("root may write everywhere")
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
    before = names(directory)
    refuse_second("holds another run; resume that one, or save into another directory")
    assert names(directory) == before and second.position.batch == 0
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
    mine = ["notes.txt", "history.json.bak", "mine.part", "epoch-x", "epoch-1", "model.params"]
    for name in (*mine, "history.json.77-abcd.part"):
        (directory / name).touch()
    for name in (".epoch-0001.part", ".epoch-0002-batch-00003.1.part"):
        (directory / name).mkdir()
        (directory / name / "model.params").write_text("half of it")
    tm.resume(directory, data).save(directory)
    assert names(directory) == sorted(["epoch-0000", "epoch-0000.1", "history.json", *mine])


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from runs import digits, make_run
run = make_run(digits(100, 20), epochs=10, log_interval=50)
run.train(save=sys.argv[1], save_every=1)
"""


def test_a_run_can_be_read_while_another_process_saves_it(data, directory):
    """The process saves a hundred checkpoints. Each that is found is complete, and none is older than the last."""
    command = [sys.executable, "-c", WRITER, str(directory), str(Path(__file__).parents[1])]
    writer = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        seen = []
        while writer.poll() is None:
            if checkpoint.list_checkpoints(directory):
                state, arrays, damaged = checkpoint.newest(directory)
                assert not damaged and arrays["model.params"]["0.weight"].shape == (10, 784)
                seen.append((state["epoch"], state["batch"]))
                with pytest.raises(tm.DataError, match=r"being saved there|another run"):
                    make_run(data).save(directory)
            else:
                time.sleep(0.01)
        assert writer.returncode == 0, writer.stderr.read()
    finally:
        writer.kill()
        writer.communicate()
    assert seen == sorted(seen) and len(set(seen)) > 20
    assert tm.resume(directory, data).position.epoch == 10


def test_a_file_system_may_have_no_locks(data, directory, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    run = save_epochs(data, directory)
    assert bits(tm.resume(directory, data)) == bits(run)
