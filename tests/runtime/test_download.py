"""Downloads, against mirrors on 127.0.0.1 that fail in every way and at last one that works."""

import hashlib
import http.server
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tinymnist import idx
from tinymnist.datasets import download
from tinymnist.datasets import load as data
from tinymnist.datasets.load import DataError

pytest.importorskip("pooch", reason="pooch does the fetching")
trustme = pytest.importorskip("trustme", reason="trustme makes the certificate of a mirror on 127.0.0.1")

ROOT = Path(__file__).parents[2]
rng = np.random.RandomState(0)
ARRAYS = {
    "train-images-idx3-ubyte.gz": rng.randint(0, 256, (60, 28, 28)).astype("u1"),
    "train-labels-idx1-ubyte.gz": rng.randint(0, 10, 60).astype("u1"),
    "t10k-images-idx3-ubyte.gz": rng.randint(0, 256, (10, 28, 28)).astype("u1"),
    "t10k-labels-idx1-ubyte.gz": rng.randint(0, 10, 10).astype("u1"),
}


class Mirror(http.server.BaseHTTPRequestHandler):
    """The first part of the path says how it behaves."""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        if self.path.startswith("/mute/"):
            self.server.closing.wait(60)
        if self.path.startswith("/downgrade/"):
            return self.redirect(*self.path.split("/")[1:])
        self.server.heads += 1
        self.send_response(200)
        self.end_headers()

    def redirect(self, kind, name):
        self.send_response(302)
        self.send_header("Location", self.server.leads_to[kind] + name)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        _, kind, name = self.path.split("/")
        body = self.server.files[name]
        self.server.asked.append(kind)
        if kind in ("404", "500"):
            return self.send_error(int(kind))
        if kind in ("elsewhere", "downgrade", "round"):
            return self.redirect(kind, name)
        if kind == "together":  # both processes are served, or neither
            self.server.two.wait(60)
        self.send_response(200)
        if kind != "endless":
            self.send_header("Content-Length", str(1 << 40 if kind == "huge" else len(body)))
        self.end_headers()
        half = len(body) // 2
        self.wfile.write(body[::-1] if kind == "wrong" else body[:half] if kind in ("cut", "stall") else body)
        if kind == "stall":
            self.wfile.flush()
            self.server.closing.wait(60)


def serve(files, context=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.daemon_threads = True
    server.files, server.asked, server.heads = files, [], 0
    server.closing, server.two = threading.Event(), threading.Barrier(2)
    scheme = "http"
    if context:
        scheme, server.socket = "https", context.wrap_socket(server.socket, server_side=True)
    server.url = f"{scheme}://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


@pytest.fixture(scope="module")
def mirrors(tmp_path_factory):
    """An https mirror, an http one that nobody may ask, and the files that both have."""
    directory = tmp_path_factory.mktemp("published")
    for name, array in ARRAYS.items():
        idx.write(directory / name, array)
    files = {name: (directory / name).read_bytes() for name in ARRAYS}
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    plain, secure = serve(files), serve(files, context)
    secure.authority, secure.plain = str(directory / "ca.pem"), plain
    secure.leads_to = {
        "elsewhere": f"{secure.url}good/",
        "downgrade": f"{plain.url}good/",
        "round": f"{secure.url}round/",
    }
    yield secure
    for server in (plain, secure):
        server.closing.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def cached(mirrors, tmp_path, monkeypatch):
    """The empty cache of a machine that trusts the mirror; `ask(kinds)` loads from mirrors of these kinds, in turn."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", mirrors.authority)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("TINYMNIST_DATA", "MXNET_HOME"):
        monkeypatch.delenv(name, raising=False)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in mirrors.files.items()}
    monkeypatch.setitem(download.SHA256, "mnist", sums)
    monkeypatch.setattr(download, "STALL", 2)
    mirrors.asked.clear()
    mirrors.plain.asked.clear()
    return tmp_path / ".mxnet" / "datasets" / "mnist"


def whole(directory, mirrors):
    """The four files and nothing beside them, here and anywhere in the home."""
    home = directory.parents[2]
    found = {path.relative_to(home) for path in home.rglob("*") if path.is_file()}
    return found == {(directory / name).relative_to(home) for name in ARRAYS} and all(
        (directory / name).read_bytes() == content for name, content in mirrors.files.items()
    )


def ask(monkeypatch, mirrors, *kinds):
    monkeypatch.setitem(download.MIRRORS, "mnist", [f"{mirrors.url}{kind}/" for kind in kinds])
    return data.load("mnist")


def test_a_mirror_that_works(cached, mirrors, monkeypatch, capfd):
    found = ask(monkeypatch, mirrors, "good")
    assert whole(cached, mirrors) and np.array_equal(found.train.images, ARRAYS["train-images-idx3-ubyte.gz"])
    assert f"fetching mnist from {mirrors.url}good/ into {cached}\n" == capfd.readouterr().err
    ask(monkeypatch, mirrors, "404")
    assert mirrors.asked == ["good"] * 4  # what is there is not fetched again


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("cut", "127.0.0.1:"),
        ("stall", "Read timed out"),
        ("wrong", "not the published file"),
        ("404", "status 404"),
        ("500", "status 500"),
        ("downgrade", "which is not https"),
        ("round", "Exceeded 30 redirects"),
        ("endless", "does not say that it sends at most 104,857,600 bytes"),
        ("huge", "does not say that it sends at most 104,857,600 bytes"),
    ],
)
def test_a_mirror_that_fails_and_one_that_works(cached, mirrors, monkeypatch, kind, reason):
    start = time.monotonic()
    with pytest.raises(DataError, match=f"train-images-idx3-ubyte.gz: no mirror has delivered it .*{reason}"):
        ask(monkeypatch, mirrors, kind)
    assert not any(cached.rglob("*"))  # nothing half-written, under any name
    ask(monkeypatch, mirrors, kind, "good")
    assert whole(cached, mirrors) and mirrors.asked.count("good") == 4
    assert mirrors.plain.asked == [] and mirrors.plain.heads == 0 and time.monotonic() - start < 20


def test_all_of_them_in_turn(cached, mirrors, monkeypatch):
    ask(monkeypatch, mirrors, "404", "stall", "wrong", "cut", "500", "downgrade", "mute", "elsewhere")
    assert whole(cached, mirrors)


def test_a_mirror_over_http_is_refused(cached, mirrors, monkeypatch):
    monkeypatch.setitem(download.MIRRORS, "mnist", [f"{mirrors.plain.url}good/"])
    with pytest.raises(DataError, match="which is not https"):
        data.load("mnist")
    assert not any(cached.rglob("*"))


def test_a_mirror_that_nobody_vouches_for_is_refused(cached, mirrors, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(DataError, match="none of its 1 mirrors answers"):
        ask(monkeypatch, mirrors, "good")
    assert mirrors.asked == []


@pytest.mark.parametrize("content", [b"", b"wrong", "cut", "other"])
def test_a_wrong_file_in_the_cache_is_fetched_anew(cached, mirrors, monkeypatch, capfd, content):
    ask(monkeypatch, mirrors, "good")
    name = "train-labels-idx1-ubyte.gz"
    if content == "other":
        idx.write(cached / name, 9 - ARRAYS[name])
    else:
        (cached / name).write_bytes(mirrors.files[name][:30] if content == "cut" else content)
    found = ask(monkeypatch, mirrors, "404", "good")
    assert whole(cached, mirrors) and np.array_equal(found.train.labels, ARRAYS[name])
    assert f"{cached / name}: is not the published file; fetching it anew" in capfd.readouterr().err


def test_a_wrong_file_in_the_cache_of_a_machine_without_network(cached, mirrors, monkeypatch, capfd):
    ask(monkeypatch, mirrors, "good")
    name = "train-labels-idx1-ubyte.gz"
    idx.write(cached / name, 9 - ARRAYS[name])  # whole, though another: used, and the user is told
    assert np.array_equal(ask(monkeypatch, mirrors, "404").train.labels, 9 - ARRAYS[name])
    assert f"going on with {name} as found" in capfd.readouterr().err
    (cached / name).write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match=f"{name}: the gzip around it is cut short"):
        ask(monkeypatch, mirrors, "404")


FETCH = """
import sys
from tinymnist.datasets import load as data, download
download.MIRRORS["mnist"], download.SHA256["mnist"] = [sys.argv[1]], dict(a.split("=") for a in sys.argv[2:])
print(len(data.load("mnist").train.labels))
"""


def fetching(url):
    sums = [f"{name}={value}" for name, value in download.SHA256["mnist"].items()]
    return subprocess.Popen([sys.executable, "-c", FETCH, url, *sums], cwd=ROOT, stdout=subprocess.PIPE)


def test_two_processes_at_once(cached, mirrors):
    both = [fetching(f"{mirrors.url}together/") for _ in range(2)]
    assert [process.communicate(timeout=120)[0] for process in both] == [b"60\n", b"60\n"]
    assert whole(cached, mirrors) and mirrors.asked == ["together"] * 8


def test_a_process_killed_on_the_way(cached, mirrors, monkeypatch):
    process = fetching(f"{mirrors.url}stall/")
    while "stall" not in mirrors.asked:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert not any((cached / name).exists() for name in ARRAYS)
    ask(monkeypatch, mirrors, "good")
    assert all((cached / name).read_bytes() == content for name, content in mirrors.files.items())


OFFLINE = """
import socket, time
socket.getaddrinfo = lambda *_, **__: time.sleep(300)  # a resolver that hangs
from tinymnist.datasets import load as data
start = time.monotonic()
print(data.load().name, time.monotonic() - start < 5)
"""


def test_who_is_offline_knows_within_five_seconds(cached):
    process = subprocess.run([sys.executable, "-c", OFFLINE], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert process.stdout == "digits True\n"
    assert "embedded digits, which are not MNIST: mnist: none of its 3 mirrors answers" in process.stderr
    assert not any(cached.rglob("*"))


def test_a_cache_that_cannot_be_written(cached, mirrors, monkeypatch):
    cached.parents[1].write_text("a file where the directory should be")
    with pytest.raises(DataError, match=f"{cached}: cannot be written: Not a directory"):
        ask(monkeypatch, mirrors, "good")


def test_what_is_published_is_complete():
    assert set(download.MIRRORS) == set(download.SHA256) == {"mnist", "fashion-mnist"}
    for name, sums in download.SHA256.items():
        assert list(sums) == list(ARRAYS) and all(len(bytes.fromhex(value)) == 32 for value in sums.values())
        assert len(download.MIRRORS[name]) == 3
        assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in download.MIRRORS[name])
