"""Published data sets, fetched into the cache that Gluon keeps too: $MXNET_HOME or ~/.mxnet, then datasets/NAME.

A file gets its name only after its SHA-256 is found to be the published one; until then it lies beside under another.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
import time
import urllib.parse

from tinymnist.datasets.published import MIRRORS, SHA256
from tinymnist.idx import DataError

PATIENCE = 3  # seconds for a mirror to answer at all: who is offline shall know within five
STALL = 10  # seconds without a byte that end a transfer
LARGEST = 100 << 20  # bytes; more than any of the files


def cache(name: str) -> str:
    """The directory where Gluon looks for the data set, and tinymnist with it."""
    home = os.environ.get("MXNET_HOME") or os.path.join(os.path.expanduser("~"), ".mxnet")
    return os.path.join(home, "datasets", name)


def fetch(name: str) -> str:
    """The directory with a published data set; files that are missing, or are not the published ones, are downloaded.

    Where no mirror can be had, files that are not the published ones are used as they are, and the user is told.
    """
    directory = cache(name)
    missing, strange = [], []
    for file, expected in SHA256[name].items():
        path = os.path.join(directory, file)
        if not os.path.exists(path):
            missing.append(file)
        elif _sha256(path) != expected:
            strange.append(file)
            print(f"{path}: is not the published file; fetching it anew", file=sys.stderr)
    try:
        if missing or strange:
            _download(name, missing + strange, directory)
    except DataError as error:
        if missing:
            raise
        print(f"{error}; going on with {', '.join(strange)} as found", file=sys.stderr)
    return directory


def _sha256(path):
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _download(name, files, directory):
    try:
        import pooch
        import requests
    except ImportError as error:
        raise DataError(f"{name}: downloading needs {error.name}; pip install pooch") from error
    pooch.get_logger().setLevel("ERROR")
    mirrors = _answering(requests, MIRRORS[name], files[0])
    if not mirrors:
        raise DataError(f"{name}: none of its {len(MIRRORS[name])} mirrors answers within {PATIENCE} seconds")
    print(f"fetching {name} from {mirrors[0]} into {directory}", file=sys.stderr)
    options = {"timeout": (PATIENCE, STALL), "hooks": {"response": _checked}, "chunk_size": 8192}
    for file in files:
        failures = []
        while len(failures) < len(mirrors):
            try:
                with _bar(file) as bar:
                    get = pooch.HTTPDownloader(progressbar=bar, **options)
                    pooch.retrieve(mirrors[0] + file, f"sha256:{SHA256[name][file]}", file, directory, downloader=get)
                break
            except (OSError, ValueError) as error:  # ValueError: pooch has found another SHA-256
                if getattr(error, "errno", None) and not isinstance(error, requests.RequestException):
                    raise DataError(f"{directory}: cannot be written: {error.strerror}") from error
                failures.append(f"{urllib.parse.urlsplit(mirrors[0]).netloc}: {_reason(error)}")
                mirrors.append(mirrors.pop(0))
        else:
            raise DataError(f"{file}: no mirror has delivered it ({'; '.join(failures)})")


def _answering(requests, mirrors, file):
    """The mirrors that answer anything, in their order; asked all at once, each in a thread that nobody waits for."""
    answered = set()

    def ask(mirror):
        with contextlib.suppress(OSError, ValueError):
            requests.head(mirror + file, timeout=PATIENCE, allow_redirects=False)
            answered.add(mirror)

    threads = [threading.Thread(target=ask, args=(mirror,), daemon=True) for mirror in mirrors]
    end = time.monotonic() + PATIENCE
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    return [mirror for mirror in mirrors if mirror in answered]


def _checked(response, **_):
    """Called with every response, before a redirect is followed and before the body is read."""
    target = urllib.parse.urljoin(response.url, response.headers.get("location", ""))
    if not target.startswith("https://"):
        raise OSError(f"leads to {target}, which is not https")
    if response.status_code == 200 and not 0 < int(response.headers.get("content-length", 0)) <= LARGEST:
        raise OSError(f"does not say that it sends at most {LARGEST:,} bytes")


def _reason(error):
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status >= 400:
        return f"status {status}"
    if isinstance(error, ValueError) and "hash" in str(error):
        return "not the published file"
    return str(error) if len(str(error)) < 100 else type(error).__name__


def _bar(file):
    """A progress bar, on a terminal and where tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return contextlib.nullcontext(False)
    return tqdm(desc=file, total=1, unit="B", unit_scale=True, leave=False, disable=None)  # pooch sets the total
