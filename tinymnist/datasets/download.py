"""Published data sets, downloaded into the directory where Gluon keeps them too.

pooch downloads a file under a temporary name. The file gets its real name only if its SHA-256 is the published one.
"""

import hashlib
import importlib.util
import os
import sys
import textwrap
import threading
import time
import urllib.parse
from pathlib import Path

from tinymnist.datasets.published import MIRRORS, SHA256
from tinymnist.idx import DataError, report_errors

PATIENCE = 3  # seconds in which a mirror must answer, so that an offline user gets an answer within five seconds
STALL = 10  # seconds without a byte that end a download
LARGEST = 100 << 20  # bytes, more than any of the files has


def cache_directory(name: str) -> Path:
    """The directory where Gluon looks for a data set: $MXNET_HOME or ~/.mxnet, then datasets/NAME."""
    return Path(os.environ.get("MXNET_HOME") or os.path.expanduser("~/.mxnet"), "datasets", name)


def fetch(name: str) -> Path:
    """Return the directory of a published data set, after downloading files that are missing or not the published ones.

    A file that is not the published one, and that no mirror can replace, is used as it is, with a warning on stderr.
    An unpacked file beside them is used instead (see load.find_file), and is not compared.
    """
    directory, sums = cache_directory(name), SHA256[name]
    missing = [file for file in sums if not (directory / file).exists()]
    changed = [file for file in sums if file not in missing and sha256(directory / file) != sums[file]]
    for file in changed:
        print(f"{directory / file}: is not the published file; downloading it again", file=sys.stderr)
    try:
        if missing or changed:
            download(name, missing + changed, directory)
    except DataError as error:
        if missing:
            raise
        print(f"{error}; using the files in {directory} as found", file=sys.stderr)
    return directory


def sha256(path):
    with report_errors(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()


def download(name, files, directory):
    """Download files from the first mirror; if it fails, from the next one."""
    try:
        import pooch
        import requests
    except ImportError as error:
        raise DataError(f"{name}: downloading needs {error.name}; pip install pooch") from error
    pooch.get_logger().setLevel("ERROR")
    mirrors, failures = find_answering_mirrors(MIRRORS[name], files[0]), []
    if not mirrors:
        places = f"{directory} or a directory that $TINYMNIST_DATA names"
        found = f"none of its {len(MIRRORS[name])} mirrors answers within {PATIENCE} seconds"
        raise DataError(f"{name}: {found}; go online once, or put its four .gz files into {places}")
    print(f"downloading {name} from {mirrors[0]} into {directory}", file=sys.stderr)
    progress_bar = sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None
    get = pooch.HTTPDownloader(progress_bar, timeout=(PATIENCE, STALL), hooks={"response": check_response})
    while files:
        file = files[0]
        if not mirrors:
            raise DataError(f"{file}: no mirror has delivered it ({'; '.join(failures)})")
        try:
            pooch.retrieve(mirrors[0] + file, f"sha256:{SHA256[name][file]}", file, directory, downloader=get)
            files = files[1:]
        except (requests.RequestException, ValueError) as error:  # pooch raises ValueError for another SHA-256
            failures.append(f"{urllib.parse.urlsplit(mirrors[0]).netloc}: {textwrap.shorten(str(error), 120)}")
            mirrors = mirrors[1:]
        except OSError as error:
            raise DataError(f"{directory}: cannot be written: {error.strerror or error}") from error


def find_answering_mirrors(mirrors, file):
    """The mirrors that answer within PATIENCE seconds. Daemon threads ask them, because a name lookup can hang.

    Raises DataError if the address of the proxy is wrong.
    """
    import requests

    answered, faults = set(), []

    def ask(mirror):
        try:
            requests.head(mirror + file, timeout=PATIENCE, allow_redirects=False)
            answered.add(mirror)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:  # the proxy's address
            faults.append(error)
        except (OSError, ValueError):
            pass

    threads = [threading.Thread(target=ask, args=(mirror,), daemon=True) for mirror in mirrors]
    end = time.monotonic() + PATIENCE
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    if faults and not answered:
        raise DataError("https_proxy or all_proxy is not the address of a proxy that can be used; correct or unset it")
    return [mirror for mirror in mirrors if mirror in answered]


def check_response(response, **_):
    """Refuse plain http and endless files. requests calls this before it follows a redirect or reads the content."""
    target = urllib.parse.urljoin(response.url, response.headers.get("location", ""))
    if not target.startswith("https://"):
        raise ValueError(f"it leads to {target}, which is not https")
    if response.status_code == 200 and not 0 < int(response.headers.get("content-length", 0)) <= LARGEST:
        raise ValueError(f"it does not promise to send at most {LARGEST:,} bytes")
