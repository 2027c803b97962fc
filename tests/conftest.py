"""What pytest needs to know: the devices, how hypothesis draws, and `--differences`: how close is close."""

import os
import signal
import stat

# A shell that starts a job behind it has it ignore Ctrl-C, and what it starts inherits that; here Ctrl-C is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # or a GPU's built-in convolutions round to ten bits

import hypothesis  # noqa: E402
import pytest  # noqa: E402
from proof import DEVICES, DIFFERENCES, DTYPES  # noqa: E402

hypothesis.settings.register_profile("proof", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("proof")


@pytest.fixture(params=DEVICES, ids=str)
def device(request):
    """Every device there is, for the same proof"""
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


def pytest_addoption(parser):
    parser.addoption(
        "--differences", action="store_true", help="print the largest relative difference per op and dtype"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    if config.option.differences:
        config.option.numprocesses = 0  # they are gathered in one process


def pytest_sessionfinish():
    """No test may replace /dev/null by a file: other programs would fail."""
    if os.path.exists("/dev/null"):
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode), "a test replaced /dev/null by a file"


def pytest_terminal_summary(terminalreporter, config):
    """pytest tests/test_ops.py tests/test_loss.py --differences"""
    if not config.getoption("--differences"):
        return
    say = terminalreporter.write_line
    say(f"{'compared with the built-in':28}{'dtype':9}{'comparisons':>12}{'largest relative difference':>30}")
    for (name, dtype), found in sorted(DIFFERENCES.items()):
        say(f"{name:28}{dtype:9}{len(found):12,}{max(found):30.1e}")
    for dtype in DTYPES:
        found = [d for (_, kind), all_of_it in DIFFERENCES.items() for d in all_of_it if kind == dtype]
        say(f"{'all':28}{dtype:9}{len(found):12,}{max(found, default=0):30.1e}")
