"""Downloads from mirrors on 127.0.0.1 that fail in every way, and one that works. They have the embedded digits."""

import hashlib
import http.server
import itertools
import ssl
import threading
import time

import numpy as np
import pytest
from commands import DIGITS, ROOT, finish, start

from tinymnist import idx
from tinymnist.datasets import download
from tinymnist.datasets.load import load
from tinymnist.idx import DataError

pytest.importorskip("pooch", reason="pooch downloads")
trustme = pytest.importorskip("trustme", reason="trustme makes the certificate of a mirror on 127.0.0.1")

FILES = {name: (DIGITS / name).read_bytes() for name in download.SHA256["mnist"]}
LABELS = "train-labels-idx1-ubyte.gz"


class Mirror(http.server.BaseHTTPRequestHandler):
    """The first part of the path says how it behaves."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        _, kind, name = self.path.split("/")
        server, body = self.server, FILES[name]
        server.requested.append(f"{self.command} {kind}")
        if kind == "mute":
            time.sleep(60)
        if kind == "together" and self.command == "GET":  # two processes are served, or none
            server.two.wait(60)
        self.send_response(int(kind) if kind.isdigit() else 302 if kind in server.redirects else 200)
        if kind in server.redirects:
            self.send_header("Location", server.redirects[kind] + name)
        if kind != "endless":
            self.send_header("Content-Length", str(1 << 40 if kind == "huge" else len(body)))
        self.end_headers()
        if self.command == "GET":
            half = body[: len(body) // 2]
            self.wfile.write(body[::-1] if kind == "wrong" else half if kind in ("cut", "stall") else body)
            self.wfile.flush()
            time.sleep(60 if kind == "stall" else 0)

    do_HEAD = do_GET


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """An https mirror, and as `.plain` an http mirror that must never be asked. Their threads end with this process."""
    plain, secure = (http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror) for _ in range(2))
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    secure.plain, secure.authority = plain, str(tmp_path_factory.mktemp("authority") / "ca.pem")
    authority.cert_pem.write_to_path(secure.authority)
    for server, scheme in ((plain, "http"), (secure, "https")):
        server.url, server.requested = f"{scheme}://127.0.0.1:{server.server_port}/", []
        server.redirects, server.two = {}, threading.Barrier(2)
        server.handle_error = lambda *_: None  # a client that has seen enough closes the connection
        threading.Thread(target=server.serve_forever, daemon=True).start()
    targets = {"elsewhere": f"{secure.url}good/", "round": f"{secure.url}round/", "downgrade": f"{plain.url}good/"}
    secure.redirects.update(targets)
    return secure


@pytest.fixture
def cache(mirror, tmp_path, monkeypatch):
    """The empty cache of a machine that trusts the mirror"""
    for name, value in {"HOME": tmp_path, "REQUESTS_CA_BUNDLE": mirror.authority, "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, str(value))
    for name in ("TINYMNIST_DATA", "MXNET_HOME"):
        monkeypatch.delenv(name, raising=False)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setitem(download.SHA256, "mnist", sums)
    monkeypatch.setitem(download.MIRRORS, "mnist", [])
    monkeypatch.setattr(download, "STALL", 2)
    mirror.requested.clear()
    mirror.plain.requested.clear()
    return tmp_path / ".mxnet" / "datasets" / "mnist"


def load_from(mirror, *kinds):
    """Load MNIST from mirrors of these kinds."""
    download.MIRRORS["mnist"][:] = [f"{mirror.url}{kind}/" for kind in kinds]
    return load("mnist")


def is_complete(cache):
    """The cache has the published files, and there are no other files in it or anywhere in the home."""
    found = {path: path.read_bytes() for path in cache.parents[2].rglob("*") if path.is_file()}
    return found == {cache / name: content for name, content in FILES.items()}


def test_missing_files_are_downloaded_once(cache, mirror, capfd):
    assert load_from(mirror, "good").fingerprint == load("digits").fingerprint and is_complete(cache)
    assert capfd.readouterr().err == f"downloading mnist from {mirror.url}good/ into {cache}\n"
    load_from(mirror, "404")
    assert mirror.requested == ["HEAD good", *["GET good"] * 4]


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("cut", "127.0.0.1:"),
        ("stall", "Read timed out"),
        ("wrong", "SHA256 hash of downloaded file .* does not match"),
        ("404", "404 Client Error"),
        ("downgrade", "which is not https"),
        ("round", "Exceeded 30 redirects"),
        ("endless", "it does not promise to send at most 104,857,600 bytes"),
        ("huge", "it does not promise to send at most 104,857,600 bytes"),
    ],
)
def test_a_mirror_that_fails_leaves_no_file_and_the_next_one_is_asked(cache, mirror, kind, reason):
    began = time.monotonic()
    with pytest.raises(DataError, match=f"^train-images-idx3-ubyte.gz: no mirror has delivered it .*{reason}") as error:
        load_from(mirror, kind)
    assert "\n" not in str(error.value) and not any(cache.rglob("*"))  # no part of a file, under any name
    load_from(mirror, kind, "good")
    assert is_complete(cache) and mirror.requested.count("GET good") == 4
    assert mirror.plain.requested == [] and time.monotonic() - began < 20


def test_mirrors_are_asked_in_turn(cache, mirror):
    load_from(mirror, "404", "stall", "wrong", "mute", "elsewhere")
    assert is_complete(cache)


def test_a_mirror_without_https_or_a_trusted_certificate_is_refused(cache, mirror, monkeypatch):
    with pytest.raises(DataError, match="which is not https"):
        load_from(mirror.plain, "good")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(DataError, match="none of its 1 mirrors answers"):
        load_from(mirror, "good")
    assert mirror.requested == [] and not any(cache.rglob("*"))


def test_a_changed_file_is_downloaded_again_or_used_with_a_warning(cache, mirror, capfd):
    labels = load_from(mirror, "good").train.labels
    idx.write(cache / LABELS, 9 - labels)
    assert np.array_equal(load_from(mirror, "404").train.labels, 9 - labels)
    assert f"; using the files in {cache} as found" in capfd.readouterr().err
    for content in ((cache / LABELS).read_bytes(), b""):
        (cache / LABELS).write_bytes(content)
        assert np.array_equal(load_from(mirror, "404", "good").train.labels, labels)
        assert f"{cache / LABELS}: is not the published file; downloading it again" in capfd.readouterr().err
        assert is_complete(cache)
    (cache / LABELS).write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match=f"{LABELS}: cannot be read"):
        load_from(mirror, "404")


def set_up(cache, states):
    """Bring every file of a cache into a state. Returns {path: content}."""
    for path in cache.glob("*"):
        path.unlink()
    contents = {"good": FILES, "wrong": dict.fromkeys(FILES, b"wrong")}
    found = {cache / name: contents[state][name] for name, state in states.items() if state != "missing"}
    for path, content in found.items():
        path.write_bytes(content)
    return found


@pytest.mark.parametrize("kind", ["good", "wrong", "404", None])
def test_every_file_may_be_good_missing_or_wrong(cache, mirror, capfd, kind):
    """All 81 states, and a mirror that has the published files, or others, or none, or that does not answer"""
    cache.mkdir(parents=True)
    download.MIRRORS["mnist"][:] = [f"{mirror.url}{kind}/" if kind else "https://127.0.0.1:1/"]
    for states in itertools.product(("good", "missing", "wrong"), repeat=len(FILES)):
        before, error = set_up(cache, dict(zip(FILES, states))), None
        missing, wrong = ([name for name, s in zip(FILES, states) if s == what] for what in ("missing", "wrong"))
        wanted = missing + wrong
        mirror.requested.clear()
        try:
            assert download.fetch("mnist") == cache
        except DataError as raised:
            error = str(raised)
        warning, after = capfd.readouterr().err, {path: path.read_bytes() for path in cache.glob("*")}
        again = [f"{cache / name}: is not the published file; downloading it again" for name in wrong]
        assert warning.splitlines()[: len(again)] == again and warning.count("downloading it again") == len(again), (
            states
        )
        if kind == "good" or not wanted:
            assert (after, error) == ({cache / name: content for name, content in FILES.items()}, None), states
            assert mirror.requested == (["HEAD good"] + ["GET good"] * len(wanted) if wanted else []), states
            assert "as found" not in warning, states
        else:
            reason = f"{wanted[0]}: no mirror has delivered it" if kind else "mnist: none of its 1 mirrors answers"
            assert after == before and (error is not None) == bool(missing), states
            assert reason in (error or warning.splitlines()[-1]), states
            assert warning.endswith(f"; using the files in {cache} as found\n") == (not missing), states


LOAD = """
import sys
from tinymnist.datasets import download, load
download.MIRRORS["mnist"], download.SHA256["mnist"] = [sys.argv[1]], dict(a.split("=") for a in sys.argv[2:])
print(len(load.load("mnist").train.labels))
"""


def start_download(url):
    sums = [f"{name}={value}" for name, value in download.SHA256["mnist"].items()]
    return start(url, *sums, python=["-c", LOAD], cwd=ROOT)


def test_two_processes_may_download_at_once(cache, mirror):
    both = [start_download(f"{mirror.url}together/") for _ in range(2)]
    assert [finish(process)[:2] for process in both] == [(0, "1497\n")] * 2
    assert is_complete(cache) and mirror.requested.count("GET together") == 8


def test_a_killed_download_leaves_no_published_name(cache, mirror):
    process = start_download(f"{mirror.url}stall/")
    while "GET stall" not in mirror.requested:
        time.sleep(0.05)
    process.kill()
    finish(process)
    assert not any((cache / name).exists() for name in FILES)
    load_from(mirror, "good")
    assert all((cache / name).read_bytes() == content for name, content in FILES.items())


OFFLINE = """
import socket, time
socket.getaddrinfo = lambda *_, **__: time.sleep(300)  # a name lookup that hangs
import tinymnist as tm
start = time.monotonic()
print(tm.load().name, time.monotonic() - start < 5)
"""


def test_an_offline_user_gets_digits_within_five_seconds(cache):
    status, out, err = finish(start(python=["-c", OFFLINE], cwd=ROOT))
    assert (status, out, err.count("\n")) == (0, "digits True\n", 1)
    assert "mnist: none of its 3 mirrors answers within 3 seconds; go online once, or put its four .gz files" in err
    assert "Using the embedded digits, which are not MNIST." in err and not any(cache.rglob("*"))


@pytest.mark.parametrize("address", ["http://[::bad", "http://", "foo bar", "http://host:port", "ftp://host"])
def test_the_address_of_a_proxy_that_is_wrong_is_named(address, cache, monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, address)
    monkeypatch.setitem(download.MIRRORS, "mnist", ["https://192.0.2.1/"])  # for documentation: nobody is there
    monkeypatch.setattr(download, "PATIENCE", 60)  # a busy machine may need more than 3 seconds to see the mistake
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DataError, match="https_proxy or all_proxy is not the address of a proxy that can be used"):
        load("mnist")


def test_a_cache_that_cannot_be_written_is_one_sentence(cache, mirror):
    cache.parents[1].write_text("a file where the directory should be")
    with pytest.raises(DataError, match=f"{cache}: cannot be written: Not a directory"):
        load_from(mirror, "good")


def test_the_published_constants_are_complete():
    assert set(download.MIRRORS) == set(download.SHA256) == {"mnist", "fashion-mnist"}
    for name, sums in download.SHA256.items():
        assert set(sums) == set(FILES) and all(len(bytes.fromhex(value)) == 32 for value in sums.values())
        assert len(download.MIRRORS[name]) == 3
        assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in download.MIRRORS[name])
