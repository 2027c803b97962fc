"""One training in several processes on 127.0.0.1: the mathematics of one, and no wait for ever where one is gone."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import ROOT, module, refused
from runs import digits

import tinymnist as tm
from tinymnist.runtime import checkpoint, machines

TIMEOUT = 12  # seconds; what a process takes to start and to end comes on top
MLP = ("--data", "digits", "--model", "mlp", "--opt", "momentum", "--log-interval", "4")
# 30 to 60 steps on weights around 0.5: at most 2e-7 was seen. A worker left out, or counted twice, makes 1e-2.
CLOSE = 2e-6


def launched(*words, workers, timeout=60, **options):
    command = [sys.executable, ROOT / "scripts" / "launch.py", "--workers", workers, "--timeout", timeout, "--", *words]
    return subprocess.Popen([str(word) for word in command], text=True, stdout=-1, stderr=-1, **options)


def alone(epochs):
    """One process that does what the workers do together, with batches as large as theirs are in all"""
    rule = tm.Optimizer("momentum", lr=0.05)
    return tm.fit(tm.mlp(), rule, tm.load("digits"), epochs=epochs, batch_size=100, log_interval=4)


def same(directory, run):
    """The newest checkpoint in a directory is a run, within float32 rounding"""
    saved = tm.resume(directory)
    for own, expected in zip((saved.model.weights, *saved.optimizer.state), (run.model.weights, *run.optimizer.state)):
        np.testing.assert_allclose(own.asnumpy(), expected.asnumpy(), rtol=0, atol=CLOSE)
    assert (saved.epoch, saved.batch, len(saved.history)) == (run.epoch, 0, run.epoch)
    for own, expected in zip(saved.history, run.history):
        assert (own.train_accuracy, own.test_accuracy) == (expected.train_accuracy, expected.test_accuracy)
        assert [own.loss, own.test_loss] == pytest.approx([expected.loss, expected.test_loss], rel=CLOSE)
        np.testing.assert_allclose(own.curve, expected.curve, rtol=CLOSE)
    return True


def test_two_workers_are_one(tmp_path):
    process = launched(*MLP, "--epochs", 2, "--save", tmp_path / "run", workers=2)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("test accuracy") == 1 and len(re.findall(r"^ +\d+ ", out, re.M)) == 2
    assert err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert same(tmp_path / "run", alone(2))


class Company:
    """A scheduler, a server and workers, started one by one, without launch.py's care for them"""

    def __init__(self, tmp_path, workers, *words, servers=1, start=("scheduler", "server", "worker"), more=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launch = module("launch")
        options = launch.parser().parse_args(["--timeout", str(TIMEOUT)])
        options.workers, options.servers = workers, servers
        env = {
            **os.environ,
            **launch.environment("127.0.0.1", port, workers, servers, "127.0.0.1"),
            "OMP_NUM_THREADS": "1",
        }
        self.processes, self.files = {}, {}
        for name, command in launch.commands(options, [str(word) for word in words]):
            if name.startswith(start):
                self.files[name] = [tmp_path / f"{name}.{end}" for end in ("out", "err")]
                with open(self.files[name][0], "w") as out, open(self.files[name][1], "w") as err:
                    self.processes[name] = subprocess.Popen(
                        command + (more or {}).get(name, []), env=env, stdout=out, stderr=err
                    )

    def second_worker(self):
        """The name of a worker that is not the first, which prints"""
        return next(name for name in self.processes if name.startswith("worker") and not self.said(name)[0])

    def said(self, name):
        return [file.read_text() for file in self.files[name]]

    def wait(self, seconds):
        """TimeoutExpired where one has not ended after so many seconds"""
        end = time.monotonic() + seconds
        try:
            for process in self.processes.values():
                process.wait(end - time.monotonic())
        finally:
            for process in self.processes.values():
                process.kill()


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come so far"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """{what happened: (the Company without who was struck, its run's directory)}, all three at the same time"""
    companies, runs, all_of_them = {}, {}, ("scheduler", "server", "worker")
    for name, workers, start in [
        ("killed", 2, all_of_them),
        ("stopped", 1, all_of_them),
        ("missing", 2, ("scheduler", "server", "worker process 0")),
    ]:
        place = tmp_path_factory.mktemp(name)
        runs[name] = place / "run"
        words = (*MLP, "--epochs", 100000, "--save-every", 5, "--save", runs[name])
        companies[name] = Company(place, workers, *words, start=start)
    for name in ("killed", "stopped"):
        until(lambda run=runs[name]: len(checkpoint.checkpoints(run)) > 1)
    killed = companies["killed"].processes.pop(companies["killed"].second_worker())
    stopped = companies["stopped"].processes.pop("server process 0")
    killed.kill()
    stopped.send_signal(signal.SIGSTOP)
    try:
        for company in companies.values():
            company.wait(TIMEOUT + 5)
    finally:
        killed.wait()
        stopped.kill()
    return {name: (companies[name], runs[name]) for name in companies}


@pytest.mark.parametrize("what", ["killed", "stopped", "missing"])
def test_no_process_waits_for_ever(faults, what):
    """A worker killed, a server that is mute, a worker that never comes: all others end in time, with a sentence"""
    company, _ = faults[what]
    assert len(company.processes) == {"killed": 3, "stopped": 2, "missing": 3}[what]
    for name, process in company.processes.items():
        _, error = company.said(name)
        assert process.returncode == 1, (name, process.returncode, error)
        assert re.fullmatch(r"(a )?(worker|server|scheduler).*: .*This process ends.*\n", error), (name, error)


def test_a_run_goes_on_with_more_workers(faults, tmp_path):
    """From the last checkpoint of two workers, of whom one was killed, to the end with three, as if nothing had been"""
    run = faults["killed"][1]
    ended = tm.resume(run).epoch + 1
    process = launched("--resume", run, "--epochs", ended, "--kvstore", "dist_sync", workers=3)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("test accuracy") == 1
    assert same(run, alone(ended))


def test_launch_ends_all_where_one_fails(tmp_path):
    process = launched(*MLP, "--lr", "none", workers=2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--lr" in err and "ended with status 2; with it end" in err


@pytest.mark.slow
def test_launch_passes_on_a_signal(tmp_path):
    """All stop after the same batch, having saved; the run goes on in one process, and ends where it would have"""
    process = launched(*MLP, "--epochs", 1000, "--save", tmp_path / "run", workers=2)
    until(lambda: len(checkpoint.checkpoints(tmp_path / "run")) > 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode in (128 + signal.SIGTERM, 128 + signal.SIGINT), err
    assert out.count("stopped ") == 1
    ended = tm.resume(tmp_path / "run").epoch + 1
    tm.resume(tmp_path / "run", epochs=ended).train(save=tmp_path / "run")
    assert same(tmp_path / "run", alone(ended))


@pytest.mark.slow
def test_workers_with_different_options_do_not_begin(tmp_path):
    company = Company(tmp_path, 2, *MLP, "--save", tmp_path / "run", more={"worker process 1": ["--seed", "1"]})
    company.wait(TIMEOUT + 30)
    said = "".join(company.said(name)[1] for name in company.processes)
    assert said.count("was not started with the same options, data and checkpoint as worker 0") == 1
    assert 2 in [process.returncode for process in company.processes.values()]


def test_dist_sync_needs_to_know_its_company(monkeypatch):
    for name in machines.ADDRESS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"needs DMLC_PS_ROOT_URI.* in the environment; scripts/launch.py sets them"):
        tm.fit(tm.mlp(), tm.Optimizer("sgd", lr=0.1), digits(20, 20), kvstore="dist_sync")
    for name in machines.ADDRESS:
        monkeypatch.setenv(name, "no number")
    with pytest.raises(ValueError, match="DMLC_PS_ROOT_PORT must be a whole number from 1 on, not 'no number'"):
        tm.fit(tm.mlp(), tm.Optimizer("sgd", lr=0.1), digits(20, 20), kvstore="dist_sync")


@pytest.mark.parametrize(
    "setting, why",
    [
        ({"kvstore": "nonsense"}, "no kvstore 'nonsense'"),
        ({"timeout": 9}, "timeout must be 10 seconds or more, and finite, not 9"),
        ({"timeout": float("inf")}, "timeout must be 10 .* not inf"),
        ({"timeout": float("nan")}, "timeout must be 10 .* not nan"),
    ],
)
def test_settings_of_machines_are_checked(setting, why):
    with pytest.raises(ValueError, match=why):
        tm.Settings(**setting)


START, PRINT, SERVE = (), ("--print", "192.0.2.7"), ("--role", "server")


@pytest.mark.parametrize(
    "how, option, value, expected",
    [
        (START, "--port", "99999", "from 0 to 65535"),
        (START, "--port", "-1", "from 0 to 65535"),
        (PRINT, "--port", "65536", "from 0 to 65535"),
        (START, "--timeout", "inf", "10 seconds or more"),
        (START, "--timeout", "nan", "10 seconds or more"),
        (PRINT, "--timeout", "9.9", "10 seconds or more"),
        (SERVE, "--timeout", "9.9", "10 seconds or more"),
        (SERVE, "--timeout", "inf", "10 seconds or more"),
        (START, "--workers", "0", "1 or more"),
        (START, "--servers", "-1", "1 or more"),
        (PRINT, "--workers", "-1", "1 or more"),
        (PRINT, "--servers", "0", "1 or more"),
    ],
)
def test_launch_checks_its_options_before_it_starts_anything(monkeypatch, capsys, how, option, value, expected):
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(machines, "serve", None)
    assert refused(capsys, module("launch").main([*how, option, value]), f"{option} must be {expected}", f"not {value}")


def test_launch_pins_only_where_the_system_can(monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert refused(capsys, module("launch").main(["--pin"]), "--pin needs", "os.sched_setaffinity", sys.platform)


def test_the_shortest_timeout_is_one():
    assert module("launch").SHORTEST == machines.SHORTEST


@pytest.mark.parametrize("timeout, silence", [(10, 2), (60, 27), (1e10, 14999997), (1e300, 14999997)])
def test_a_silence_is_a_c_int(monkeypatch, timeout, silence):
    monkeypatch.setattr(machines.Watch, "look", lambda watch: None)
    assert machines.Watch("a worker", timeout).silence == silence


def test_launch_prints_the_commands_for_several_machines(capsys):
    hosts = ["192.0.2.7", "192.0.2.8"]  # addresses for documentation: nothing is sent there
    assert not module("launch").main(["--print", *hosts, "--workers", "3", "--", "--model", "lenet"])
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    words = [shlex.split(line) for line in lines]
    where = [dict(word.split("=", 1) for word in line if re.match("DMLC_", word)) for line in words]
    assert [at["DMLC_NODE_HOST"] for at in where] == [hosts[i] for i in (0, 0, 1, 0, 1, 0)]
    assert {(at["DMLC_PS_ROOT_URI"], at["DMLC_NUM_WORKER"], at["DMLC_NUM_SERVER"]) for at in where} == {
        (hosts[0], "3", "2")
    }
    assert [line[line.index("--role") + 1] for line in words[:3]] == ["scheduler", "server", "server"]
    assert all(line[-2:] == ["--model", "lenet"] and "dist_sync" in line for line in words[3:])
