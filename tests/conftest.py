"""Set-up for all tests: the devices, how hypothesis draws, and the option `--differences`."""

import os
import signal
import stat

# A shell makes its background jobs ignore Ctrl-C, nohup makes a job ignore SIGHUP, and their children inherit this. The
# tests of signals need them back.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # otherwise a GPU's built-in convolutions round to ten bits

import hypothesis  # noqa: E402
import pytest  # noqa: E402
from proof import DEVICES, DIFFERENCES, DTYPES  # noqa: E402

hypothesis.settings.register_profile("proof", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("proof")


@pytest.fixture(params=DEVICES, ids=str, scope="session")
def device(request):
    """The CPU, and the first GPU if there is one."""
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture
def new_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def pytest_addoption(parser):
    text = "print the largest relative difference per function and dtype"
    parser.addoption("--differences", action="store_true", help=text)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    if config.option.differences:
        config.option.numprocesses = 0  # one process collects all differences


def pytest_sessionfinish():
    """No test may replace /dev/null by a file: other programs would fail."""
    if os.path.exists("/dev/null"):
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode), "a test replaced /dev/null by a file"


def pytest_terminal_summary(terminalreporter, config):
    """pytest tests/proofs/test_ops.py tests/proofs/test_loss.py --differences"""
    if not config.getoption("--differences"):
        return
    write = terminalreporter.write_line
    write(f"{'compared with the built-in':28}{'dtype':9}{'comparisons':>12}{'largest relative difference':>30}")
    for (name, dtype), differences in sorted(DIFFERENCES.items()):
        write(f"{name:28}{dtype:9}{len(differences):12,}{max(differences):30.1e}")
