"""A checkpoint is there whole or not at all, a damaged one is noticed, and nothing that was saved is lost."""

import errno
import json
import os
import pickle
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from runs import SMALL, begun, bits, digits
from test_models import gluon_dropout_cnn, gluon_lenet, gluon_mlp, gluon_softmax_regression

import tinymnist as tm
from tinymnist.backend import mx, nd
from tinymnist.runtime import checkpoint

GLUON = {"softmax": gluon_softmax_regression, "mlp": gluon_mlp, "lenet": gluon_lenet, "dropout-cnn": gluon_dropout_cnn}


@pytest.fixture(scope="module")
def data():
    return digits(100, 20)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "run"


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def trained(data, directory, model="mlp", epochs=2):
    """Saved after every epoch; two checkpoints are left."""
    return begun(data, model, epochs=epochs).train(save=directory)


# What is saved


@pytest.mark.parametrize("model", GLUON)
def test_gluon_reads_the_parameters(model, data, directory):
    """A model's digits are those of the Gluon network that was given its file."""
    run = begun(data, model, arguments={})
    twin = GLUON[model]()
    twin.load_parameters(str(run.save(directory) / "model.params"))
    logits = twin(nd.array(data.test.images[:, None], dtype="float32") / 255)
    ours = tm.predict(run.model, data.test.images)
    np.testing.assert_allclose(mx.nd.softmax(logits).asnumpy(), ours, rtol=1e-4, atol=1e-6)


def test_a_run_directory(data, directory):
    run = trained(data, directory, epochs=3)
    assert names(directory) == ["epoch-0002", "epoch-0003", "history.json"]
    assert names(directory / "epoch-0003") == ["model.params", "optimizer.params", "run.json"]
    state = json.loads((directory / "epoch-0003/run.json").read_text())["run"]
    assert (state["model"], state["rule"], state["epoch"]) == ("mlp", "adagrad", 3)
    assert state["arguments"]["hidden"] == list(SMALL["mlp"]["hidden"]) and state["where"] == "digits"
    history = json.loads((directory / "history.json").read_text())
    assert [epoch["test_accuracy"] for epoch in history] == [epoch.test_accuracy for epoch in run.history]


def test_it_is_saved_before_the_first_batch(data, directory):
    """so that a run that is killed in its first epoch can go on, too, and a full disk is no late surprise"""
    with pytest.raises(ZeroDivisionError):
        begun(data).train(save=directory, on_batch=lambda run, n: 1 / 0)
    assert names(directory) == ["epoch-0000", "history.json"]
    assert bits(tm.resume(directory, data, epochs=1).train()) == bits(begun(data, epochs=1).train())


def test_the_epoch_is_saved_before_anybody_is_told(data, directory):
    """A program that fails when it prints has not lost the epoch."""
    with pytest.raises(BrokenPipeError):
        begun(data).train(save=directory, on_epoch=lambda run: os.write(closed_pipe(), b"1"))
    assert tm.resume(directory, data).epoch == 1


def closed_pipe():
    read, write = os.pipe()
    os.close(read)
    return write


def test_the_same_point_twice(data, directory):
    """is two checkpoints, the later one the newer"""
    run = begun(data)
    for name in ("epoch-0000", "epoch-0000.1", "epoch-0000.2"):
        run.model.weights[:] += 1
        assert run.save(directory) == directory / name
        assert bits(tm.resume(directory, data)) == bits(run)
    assert names(directory) == ["epoch-0000.1", "epoch-0000.2", "history.json"]


def test_odd_places(data, tmp_path):
    place = tmp_path / "a b" / "c=d?e#f%20" / "é 数" / "run.part"
    run = trained(data, place)
    assert bits(tm.resume(place, data)) == bits(run)
    link = tmp_path / "link"
    link.symlink_to(place)
    tm.resume(link, data, epochs=3).train(save=link)
    assert names(place) == ["epoch-0002", "epoch-0003", "history.json"]


# What is damaged


def noticed(data, directory, capsys, file):
    """The earlier checkpoint is used, the user told what is wrong, and from there the run goes on as ever."""
    run = tm.resume(directory, data)
    assert run.epoch == 1
    said = capsys.readouterr().err
    assert file in said and "is damaged" in said and said.count("\n") == 1
    return run


def files(path):
    return [path / name for name in ("model.params", "optimizer.params", "run.json")]


def test_a_flipped_bit(data, directory, capsys):
    """in 200 bytes of the arrays, and in 200 of run.json"""
    before = trained(data, directory)
    rng = random.Random(0)
    *arrays, text = files(directory / "epoch-0002")
    for number in range(400):
        file = rng.choice(arrays) if number % 2 else text
        whole = file.read_bytes()
        at = rng.randrange(len(whole))
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
        with pytest.raises(checkpoint.Damaged):
            checkpoint.verified(directory / "epoch-0002")
        if number % 20 < 2:
            noticed(data, directory, capsys, "epoch-0002")
        file.write_bytes(whole)
    assert bits(tm.resume(directory, data)) == bits(before)


def test_a_cut_file(data, directory, capsys):
    """at 50 lengths, and empty"""
    before = trained(data, directory)
    rng = random.Random(0)
    for number in range(51):
        file = rng.choice(files(directory / "epoch-0002"))
        whole = file.read_bytes()
        file.write_bytes(whole[: rng.randrange(len(whole)) if number else 0])
        noticed(data, directory, capsys, "epoch-0002")
        file.write_bytes(whole)
    assert bits(tm.resume(directory, data)) == bits(before)


@pytest.mark.parametrize("name", ["model.params", "optimizer.params", "run.json"])
@pytest.mark.parametrize("harm", ["gone", "longer", "a directory", "another's"])
def test_other_harm(name, harm, data, directory, capsys):
    before = bits(trained(data, directory))
    file = directory / "epoch-0002" / name
    if harm == "longer":
        file.write_bytes(file.read_bytes() + b"\n")
    elif harm == "another's":
        file.write_bytes((directory / "epoch-0001" / name).read_bytes())
    else:
        file.unlink()
    if harm == "a directory":
        file.mkdir()
    run = noticed(data, directory, capsys, "epoch-0002")
    assert bits(run.train(save=directory)) == before  # and the damaged one is no longer in the way
    assert bits(tm.resume(directory, data)) == before
    assert names(directory) == ["epoch-0001", "epoch-0002.1", "history.json"]


def test_all_are_damaged(data, directory):
    trained(data, directory)
    for path in directory.glob("epoch-*/run.json"):
        path.write_bytes(b"[" * 100_000)
    with pytest.raises(tm.DataError, match=r"epoch-0002.*is damaged.*; .* holds none that can be used"):
        tm.resume(directory, data)


def test_the_spare_one_is_whole(data, directory):
    """What is damaged makes room, not what is whole."""
    run = trained(data, directory)
    file = directory / "epoch-0002/model.params"
    file.write_bytes(file.read_bytes()[:-1])
    run.save(directory)
    assert names(directory) == ["epoch-0001", "epoch-0002.1", "history.json"]


def test_nothing_there(data, directory):
    for there, what in ((directory, "is no directory"), (directory.parent, "holds no checkpoint")):
        with pytest.raises(tm.DataError, match=f"{what}; a run that was saved holds folders such as epoch-0001"):
            tm.resume(there, data)


def reseal(path, **changes):
    """A run.json that says something else, with a checksum that fits"""
    state = json.loads((path / "run.json").read_bytes())["run"]
    (path / "run.json").write_text(checkpoint.sealed({**state, **changes}))


def test_another_version(data, directory):
    begun(data).save(directory)
    reseal(directory / "epoch-0000", version=2)
    with pytest.raises(tm.DataError, match="epoch-0000: was written by another version of tinymnist, in form 2, not 1"):
        tm.resume(directory, data)
    with pytest.raises(tm.DataError, match="holds another run"):  # nor is it pruned
        begun(data).save(directory)


def test_only_the_four_models_are_made_by_name(data, directory):
    begun(data).save(directory)
    for name in ("inspect", "remembered", "MODELS", "Sequential", None):
        reseal(directory / "epoch-0000", model=name)
        with pytest.raises(tm.DataError, match="not one of tinymnist's own"):
            tm.resume(directory, data)


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_a_pickle_is_not_read(data, directory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begun(data).save(directory)
    content = pickle.dumps(Harm())
    digest = checkpoint.hashlib.sha256(content).hexdigest()
    for name in ("model.params", "optimizer.params"):
        (directory / "epoch-0000" / name).write_bytes(content)
    reseal(directory / "epoch-0000", sha256={"model.params": digest, "optimizer.params": digest})
    with pytest.raises(tm.DataError, match="is damaged"):
        tm.resume(directory, data)
    (directory / "epoch-0000/run.json").write_bytes(content)
    with pytest.raises(tm.DataError, match="is damaged"):
        tm.resume(directory, data)
    assert not os.path.exists("harm")
    sources = "".join(path.read_text() for path in Path(tm.__file__).parent.rglob("*.py"))
    assert "pickle" not in sources and "marshal" not in sources and "eval(" not in sources


# What cannot be written


def system_calls(monkeypatch, fails):
    """Lets fails(n, name) be called before the n-th call of all that reads or writes; -> a list of their names"""
    done = []

    def watched(owner, name):
        original = getattr(owner, name)

        def call(*args, **kwargs):
            done.append(name)
            fails(len(done), name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for owner, name in (
        *((os, "fsync"), (os, "replace"), (nd, "save"), (Path, "mkdir"), (Path, "rename"), (Path, "read_bytes")),
        *((checkpoint, "sealed"), (checkpoint, "replacing"), (checkpoint, "discard")),
    ):
        watched(owner, name)
    return done


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_every_way_to_fail(code, data, directory, monkeypatch):
    """The first, second, … thing that is done fails: a sentence, and what was there before is there still."""
    run = trained(data, directory, "softmax")
    saved, outcomes = bits(run), []
    for number in range(1, 99):
        run.model.weights[:] += 1
        with monkeypatch.context() as patch:

            def fails(n, name, number=number):
                if n == number and name != "discard":  # which fails by itself only, and quietly
                    raise OSError(code, os.strerror(code))

            done = system_calls(patch, fails)
            try:
                run.save(directory)
            except tm.DataError as error:
                assert os.strerror(code) in str(error) and "\n" not in str(error)
                outcomes.append("refused")
            else:
                outcomes.append("saved")
                saved = bits(run)
        if len(done) < number:
            break
        found = bits(tm.resume(directory, data))
        assert found == saved or (found == bits(run) and done.count("rename")), done
        assert not any(name.endswith(".part") for name in names(directory)), done
        saved = found
        for path in checkpoint.checkpoints(directory)[2:]:
            checkpoint.discard(path)
    assert outcomes.count("refused") > 15 and outcomes.count("saved") > 5
    assert bits(tm.resume(directory, data)) == bits(run)


class Killed(BaseException):
    """What no code here catches"""


def test_every_moment_to_be_killed(data, directory, monkeypatch):
    """Nothing more is done, no cleaning up: the next process finds the state before or the new one."""
    run = trained(data, directory, "softmax")
    saved, outcomes = bits(run), []
    for number in range(1, 99):
        run.model.weights[:] += 1
        with monkeypatch.context() as patch:

            def fails(n, name, number=number):
                if n >= number:
                    raise Killed

            system_calls(patch, fails)
            try:
                run.save(directory)
            except Killed:
                pass
            else:
                break
        found = bits(tm.resume(directory, data))
        assert found in (saved, bits(run))
        outcomes.append("old" if found == saved else "new")
        saved = found
    assert outcomes.count("old") > 15 and outcomes.count("new") > 3
    assert not any(name.endswith(".part") for name in names(directory))


@pytest.fixture
def disk(tmp_path):
    """A file system of 2 MB of its own, and a function that mounts it anew with other options"""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("only root can mount a file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("left", [0, 4, 8, 100, 400, 424, 428, 432, 800, 848])
def test_a_full_disk(left, data, disk):
    """Of a checkpoint of two files of 428 KiB so many KiB fit."""
    run = begun(data, "mlp", "adagrad", arguments={})
    run.save(disk / "run")
    before = bits(run)
    run.model.weights[:] += 1
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with open(disk / "ballast", "wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, free - (left << 10))
    with pytest.raises(tm.DataError, match="No space left on device"):
        run.save(disk / "run")
    assert names(disk / "run") == ["epoch-0000", "history.json"]
    assert bits(tm.resume(disk / "run", data)) == before
    (disk / "ballast").unlink()
    run.save(disk / "run")
    assert bits(tm.resume(disk / "run", data)) == bits(run)


@pytest.mark.parametrize("limit", [0, 1, 100, 1000, 5000, 31_000])
def test_a_limit_to_what_may_be_written(limit, data, directory):
    """The same for those who cannot mount: the 31 KB of a file cannot grow beyond so many bytes."""
    run = begun(data, "softmax")
    run.save(directory)
    before = bits(run)
    run.model.weights[:] += 1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(tm.DataError, match=r"the checkpoint cannot be written: [^:]*; those before it are as they"):
            run.save(directory)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(directory) == ["epoch-0000", "history.json"]
    assert bits(tm.resume(directory, data)) == before


def test_what_was_not_written_as_it_was_meant(data, directory, monkeypatch):
    """MXNet saves another number, and says nothing: it is found by reading it back."""
    save = nd.save
    run = trained(data, directory)
    monkeypatch.setattr(nd, "save", lambda path, arrays: save(path, {name: a + 1e-6 for name, a in arrays.items()}))
    with pytest.raises(tm.DataError, match="Input/output error; those before it are as they were"):
        run.save(directory)
    assert bits(tm.resume(directory, data)) == bits(run)


def test_a_read_only_disk(data, disk):
    """refuses before the first batch; reading goes on"""
    run = begun(data, epochs=1).train(save=disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for place in (disk / "run", disk / "other"):
        again = tm.resume(disk / "run", data, epochs=2)
        with pytest.raises(tm.DataError, match="nothing can be saved there: Read-only file system"):
            again.train(save=place)
        assert again.batch == 0
    assert bits(tm.resume(disk / "run", data)) == bits(run)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission(data, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(tm.DataError, match="nothing can be saved there: Permission denied"):
        begun(data).train(save=tmp_path / "run")
    tmp_path.chmod(0o700)


def test_a_path_that_is_none(data, tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(tm.DataError, match="nothing can be saved there: File exists"):
            begun(data).train(save=path)
    assert (tmp_path / "file").read_text() == "mine"


# Several at once


def test_two_runs_into_one_directory(data, directory):
    first, second = begun(data), begun(data)

    def on_batch(run, examples):
        for save in (second.save, lambda place: second.train(save=place)):
            with pytest.raises(tm.DataError, match="another run is being saved there at this moment"):
                save(directory)
        run.save(directory)  # which has it

    first.train(save=directory, on_batch=on_batch)
    before = names(directory)
    for save in (second.save, lambda place: second.train(save=place)):
        with pytest.raises(tm.DataError, match="holds another run; resume that one, or save into another directory"):
            save(directory)
    assert names(directory) == before and second.batch == 0
    assert bits(tm.resume(directory, data)) == bits(first)


def test_a_run_may_go_on_elsewhere(data, directory, tmp_path):
    trained(data, directory, epochs=1)
    tm.resume(directory, data, epochs=2).train(save=tmp_path / "branch")
    assert tm.resume(directory, data).epoch == 1 and tm.resume(tmp_path / "branch", data).epoch == 2
    tm.resume(tmp_path / "branch", data).save(directory)  # it is the same run
    assert names(directory) == ["epoch-0001", "epoch-0002", "history.json"]


def test_an_earlier_state_removes_no_later_one(data, directory):
    early = begun(data, epochs=1).train(save=directory)
    late = tm.resume(directory, data, epochs=3).train(save=directory)
    early.save(directory)
    assert bits(tm.resume(directory, data)) == bits(late)


def test_leftovers_of_the_killed_are_removed_and_nothing_else(data, directory):
    begun(data).save(directory)
    mine = ["notes.txt", "history.json.bak", "mine.part", "epoch-x", "epoch-1", "model.params"]
    left = [".epoch-0001.part", ".epoch-0002-batch-00003.1.part", "history.json.77-abcd.part"]
    for name in mine + left:
        (directory / name).write_text("") if "json" in name or name in mine else (directory / name).mkdir()
    (directory / left[0] / "model.params").write_text("half of it")
    tm.resume(directory, data).save(directory)
    assert names(directory) == sorted(["epoch-0000", "epoch-0000.1", "history.json", *mine])


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from runs import begun, digits
import tinymnist as tm
run = begun(digits(100, 20), "softmax", epochs=10, log_interval=50)
run.train(save=sys.argv[1], save_every=1)
"""


def test_reading_while_another_process_writes(data, directory, capsys):
    """A hundred come and go; every one that is read is whole, and none is older than the one before."""
    command = [sys.executable, "-c", WRITER, str(directory), str(Path(__file__).parents[1])]
    writer = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        seen = []
        while writer.poll() is None:
            if checkpoint.checkpoints(directory):
                state, arrays, damaged = checkpoint.newest(directory)
                assert not damaged and arrays["model.params"]["0.weight"].shape == (10, 784)
                seen.append((state["epoch"], state["batch"]))
                with pytest.raises(tm.DataError, match=r"being saved there|another run"):
                    begun(data).save(directory)
            else:
                time.sleep(0.01)
        assert writer.returncode == 0, writer.stderr.read()
    finally:
        writer.kill()
        writer.communicate()
    assert seen == sorted(seen) and len(set(seen)) > 20
    assert tm.resume(directory, data).epoch == 10


def test_a_file_system_without_locks(data, directory, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("tinymnist.runtime.files.fcntl.flock", unsupported)
    run = trained(data, directory)
    assert bits(tm.resume(directory, data)) == bits(run)
