"""Training in several processes on 127.0.0.1 gives the result of one process, and no process waits forever."""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import finish, module, refused, start
from runs import check_close, digits

import tinymnist as tm
from tinymnist.runtime import machines
from tinymnist.runtime.checkpoint import list_checkpoints

TIMEOUT = 12  # seconds; processes need some more to start and to end
MLP = ("--data", "digits", "--model", "mlp", "--opt", "momentum", "--log-interval", "4")
# Rounding errors of 60 steps are 2e-7. If a worker were missing, or counted twice, the difference would be 1e-2.
CLOSE = 2e-6
LAUNCH = module("launch")


def launch(*words, workers, **options):
    return start("--workers", workers, "--", *words, python=[LAUNCH.__file__], **options)


def check_run(directory, epochs):
    """The run is that of a single process with batches as large as those of all workers together."""
    run = tm.resume(directory)
    assert (run.position.epoch, run.position.batch) == (epochs, 0)
    optimizer = tm.Optimizer("momentum", lr=0.05)
    check_close(run, tm.fit(tm.mlp(), optimizer, tm.load("digits"), epochs=epochs, log_interval=4), CLOSE)


def wait_for_checkpoints(run):
    end = time.monotonic() + 120
    while len(list_checkpoints(run)) < 2:
        assert time.monotonic() < end, "nothing was saved within two minutes"
        time.sleep(0.05)


def test_two_workers_are_like_one(tmp_path):
    """Only worker 0 has a directory. It saves at batches that are not multiples of the log interval."""
    status, out, err = finish(launch(*MLP, "--epochs", 2, "--save-every", 3, workers=2, cwd=tmp_path))
    assert (status, err) == (0, "")
    assert out.count("test accuracy") == 1 and len(re.findall(r"^ +\d+ ", out, re.M)) == 2
    [run] = tmp_path.glob("runs/*")
    check_run(run, 2)


FAULTS = {  # workers; words that a process gets in addition, or None if it is not started; statuses of all others
    "killed": (2, {}, [1, 1, 1]),
    "stopped": (1, {}, [1, 1]),
    "missing": (2, {"worker process 1": None}, [1, 1, 1]),
    "different": (2, {"worker process 1": ["--seed", "1"]}, [1, 1, 1, 2]),
}
ENDS = {
    1: r"(worker|server|scheduler) \(process .*\): .*\. This process ends; .*\n",
    2: r"worker 1 must have the same options, data and checkpoint as worker 0\n",
}


def start_group(run, workers, changes):
    """{name: process} for a scheduler, a server and workers, without launch.py, which would end all of them at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*MLP, "--epochs", 100000, "--save-every", 5, "--save", run]
    options = map(str, ["--workers", workers, "--servers", 1, "--timeout", TIMEOUT, "--", *words])
    processes, streams = {}, {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    for name, _, variables, command in LAUNCH.plan(LAUNCH.make_parser().parse_args([*options]), ["127.0.0.1"], port):
        if changes.get(name, []) is not None:
            environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1"}
            command = [sys.executable, *command, *changes.get(name, [])]
            processes[name] = subprocess.Popen(command, env=environment, **streams)
    return processes


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    """({fault: {name: process}} when all have ended but those that are at fault, the directory of the runs)"""
    directory = tmp_path_factory.mktemp("runs")
    groups = {fault: start_group(directory / fault, *how[:2]) for fault, how in FAULTS.items()}
    processes = [process for group in groups.values() for process in group.values()]
    try:
        for fault in ("killed", "stopped"):
            wait_for_checkpoints(directory / fault)
        for fault, name in {"killed": "worker process 1", "stopped": "server process 0"}.items():
            groups[fault].pop(name).send_signal(signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
        end = time.monotonic() + TIMEOUT + 5
        for process in [process for group in groups.values() for process in group.values()]:
            process.wait(end - time.monotonic())
    finally:
        for process in processes:
            process.kill()
    return groups, directory


@pytest.mark.parametrize("fault", FAULTS)
def test_no_process_waits_forever(groups, fault):
    """A worker is killed, a server does not answer, a worker never comes, a worker has other options."""
    found = sorted((process.wait(), process.stderr.read()) for process in groups[0][fault].values())
    assert [status for status, _ in found] == FAULTS[fault][2], found
    for status, error in found:
        assert re.fullmatch(ENDS[status], error), found


def test_heartbeats_tell_that_nobody_is_dead(tmp_path):
    processes = start_group(tmp_path / "run", 1, {}).values()
    try:
        wait_for_checkpoints(tmp_path / "run")
        time.sleep(machines.longest_silence(TIMEOUT) + 3)
        assert [process.poll() for process in processes] == [None] * 3
    finally:
        for process in processes:
            process.kill()


def test_a_run_continues_with_more_workers(groups):
    """One of two workers was killed; three workers continue from the last checkpoint."""
    run = groups[1] / "killed"
    epochs = tm.resume(run).position.epoch + 1
    status, out, err = finish(launch("--resume", run, "--epochs", epochs, workers=3))
    assert (status, out.count("test accuracy")) == (0, 1), err
    check_run(run, epochs)


def test_launch_ends_all_if_one_fails():
    status, _, err = finish(launch(*MLP, "--lr", "none", workers=2))
    assert status == 2 and "--lr" in err and "ended with status 2. These end with it: scheduler" in err


def list_children(pid):
    """The processes that this one has started and that have not ended"""
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def test_no_process_is_left_when_launch_is_killed(tmp_path):
    process = launch(*MLP, "--epochs", 1000, "--save", tmp_path / "run", workers=2)
    wait_for_checkpoints(tmp_path / "run")
    children = list_children(process.pid)
    assert len(children) == 4 and all(map(is_running, children))
    process.kill()
    process.wait()
    end = time.monotonic() + 60
    while any(map(is_running, children)):
        assert time.monotonic() < end, "a process was left"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_launch_passes_a_signal_to_the_workers(number, tmp_path):
    """All stop after the same batch and have saved. One process continues the run."""
    run = tmp_path / "run"
    process = launch(*MLP, "--epochs", 1000, "--save", run, workers=2)
    wait_for_checkpoints(run)
    process.send_signal(number)
    status, out, err = finish(process)
    assert (status, out.count("stopped ")) == (128 + signal.SIGTERM, 1), err
    epochs = tm.resume(run).position.epoch + 1
    tm.resume(run, epochs=epochs).train(save=run)
    check_run(run, epochs)


def test_dist_sync_needs_an_address(monkeypatch):
    sentences = {
        "": "dist_sync needs DMLC_PS_ROOT_URI.* in the environment",
        "x": "ROOT_PORT must be a whole .* not 'x'",
    }
    for value, sentence in sentences.items():
        for name in machines.ADDRESS:
            monkeypatch.setenv(name, value)
        with pytest.raises(ValueError, match=sentence):
            tm.fit(tm.mlp(), tm.Optimizer("sgd", lr=0.1), digits(20, 20), kvstore="dist_sync")


def test_a_scheduler_whose_port_is_in_use_is_one_sentence(monkeypatch):
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = str(used.getsockname()[1])
        for name, value in zip(machines.ADDRESS, ("127.0.0.1", port, "1", "1")):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("DMLC_ROLE", "worker")
        status, out, err = finish(start("--role scheduler", python=[LAUNCH.__file__]))
    assert (status, out, err.count("\n")) == (2, "", 1) and err.startswith(f"port {port} cannot be used: ")


def test_settings_of_machines_are_checked():
    for timeout in (9, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"timeout must be 10 seconds or more, and finite, not {timeout}"):
            tm.Settings(timeout=timeout)
    with pytest.raises(ValueError, match="there is no kvstore 'cake'"):
        tm.Settings(kvstore="cake")


@pytest.mark.parametrize("how", [(), ("--print", "192.0.2.7"), ("--role", "server")])
def test_launch_checks_its_options_first(monkeypatch, capsys, how):
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(machines, "serve", None)
    ranges = {
        "--port must be from 0 to 65535": ("99999", "-1", "65536"),
        "--timeout must be 10 seconds or more, and finite": ("inf", "nan", "9.9"),
        "--workers must be 1 or more": ("0", "-1"),
        "--servers must be 1 or more": ("0", "-1"),
    }
    for sentence, values in ranges.items():
        for value in values:
            assert refused(capsys, LAUNCH.main([*how, sentence.split()[0], value]), f"{sentence}, not {value}")
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert refused(capsys, LAUNCH.main([*how, "--pin"]), "--pin needs", "os.sched_setaffinity", sys.platform)


def test_launch_without_tinymnist_is_one_sentence():
    status, _, err = finish(start(python=["-S", LAUNCH.__file__]))
    assert status == 2 and err.count("\n") == 1 and "cannot import tinymnist" in err


def test_times_suit_mxnet():
    """A silence is a C int, and launch.py, which cannot import MXNet, knows the same shortest timeout."""
    assert [machines.longest_silence(timeout) for timeout in (10, 60, 1e10, 1e300)] == [2, 27, 14999997, 14999997]
    assert LAUNCH.SHORTEST == machines.SHORTEST


def test_launch_prints_the_commands_for_several_machines(capsys):
    hosts = ["192.0.2.7", "192.0.2.8"]  # addresses for documentation: nothing is sent there
    assert not LAUNCH.main(["--print", *hosts, "--workers", "3", "--", "--model", "lenet"])
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    variables = [dict(word.split("=", 1) for word in line if word.startswith("DMLC_")) for line in lines]
    assert [values["DMLC_NODE_HOST"] for values in variables] == [hosts[i] for i in (0, 0, 1, 0, 1, 0)]
    common = {"DMLC_PS_ROOT_URI": hosts[0], "DMLC_NUM_WORKER": "3", "DMLC_NUM_SERVER": "2"}
    assert all(common.items() <= values.items() for values in variables)
    assert [line[line.index("--role") + 1] for line in lines[:3]] == ["scheduler", "server", "server"]
    assert all(line[-2:] == ["--model", "lenet"] and "dist_sync" in line for line in lines[3:])
