# SPDX-License-Identifier: Apache-2.0
import base64
import hashlib
import http.server
import logging
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from ppcls.utils import download
from ppcls.utils.download import fetch, is_url, without_secrets
from ppcls.utils.errors import ConfigError, StorageError

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Answers on loopback; ``failures`` is how many requests fail first, ``requests`` what was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.failures = 0
        self.requests = []
        self.release = threading.Event()

    def handle_error(self, request, client_address):
        """A client that hangs up early is part of these tests."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Authorization")))
        place = self.path.partition("?")[0]
        if place == "/slow.bin":
            self.server.release.wait(20)
        if place.startswith("/to"):
            self.send_response(302)
            self.send_header("Location", {"/to_file": "file:///etc/passwd", "/to_good": "/good.bin"}[place])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif place == "/missing.bin":
            self.send_error(404)
        elif self.server.failures > 0 and place == "/error.bin":
            self.server.failures -= 1
            self.send_error(503)
        else:
            self.send_response(200)
            if place != "/unsized.bin":
                self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            cut = self.server.failures > 0
            self.server.failures -= cut
            self.wfile.write(CONTENT[: len(CONTENT) // 2] if cut else CONTENT)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "FIRST_WAIT_SECONDS", 0.01)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def visible(cache):
    return sorted(path.name for path in cache.iterdir() if not path.name.startswith("."))


def test_file_arrives_whole_with_its_digest_beside_it(server, cache):
    path = fetch(f"{server.url}/a/weights.pdparams")
    assert path.parent == cache and path.read_bytes() == CONTENT
    assert path.name.startswith("weights-") and path.suffix == ".pdparams"
    assert visible(cache) == [path.name, path.name + ".sha256"]
    assert (cache / (path.name + ".sha256")).read_text().strip() == DIGEST


def test_second_use_asks_nobody(server, cache):
    assert fetch(f"{server.url}/a.bin") == fetch(f"{server.url}/a.bin")
    assert len(server.requests) == 1


def test_namesakes_do_not_meet(server, cache):
    urls = [f"{server.url}/{place}" for place in ("a/x.bin", "b/x.bin", "b/x.bin?version=2")]
    assert len({fetch(url) for url in urls}) == 3


@pytest.mark.parametrize("name", ["good.bin", "unsized.bin", "to_good"])
def test_sized_unsized_and_redirected_answers(server, cache, name):
    assert fetch(f"{server.url}/{name}").read_bytes() == CONTENT


def test_file_altered_after_the_download_is_refused(server, cache):
    path = fetch(f"{server.url}/a.bin")
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(StorageError, match=r"altered since it was downloaded.*delete both"):
        fetch(f"{server.url}/a.bin")


def test_expected_digest_in_the_argument_or_the_address(server, cache):
    assert fetch(f"{server.url}/a.bin", sha256=DIGEST.upper()).read_bytes() == CONTENT
    assert fetch(f"{server.url}/b.bin#sha256={DIGEST}").read_bytes() == CONTENT
    # The fragment is not part of the address.
    assert fetch(f"{server.url}/b.bin#sha256={DIGEST}") == fetch(f"{server.url}/b.bin")


def test_another_digest_is_refused_and_leaves_nothing(server, cache):
    with pytest.raises(StorageError, match=f"not the expected file, its sha256 is {DIGEST} instead of {'0' * 64}"):
        fetch(f"{server.url}/a.bin", sha256="0" * 64)
    assert visible(cache) == []


def test_another_digest_of_a_cached_file_is_refused(server, cache):
    fetch(f"{server.url}/a.bin")
    with pytest.raises(StorageError, match="not the expected file.*delete it"):
        fetch(f"{server.url}/a.bin#sha256={'0' * 64}")


def test_improper_digests_are_refused(cache):
    with pytest.raises(ConfigError, match="'12' is no sha256"):
        fetch("http://127.0.0.1/a.bin#sha256=12")
    with pytest.raises(ConfigError, match="two different digests"):
        fetch(f"http://127.0.0.1/a.bin#sha256={'0' * 64}", sha256="1" * 64)


@pytest.mark.parametrize("name", ["error.bin", "cut.bin"])
def test_passing_failures_are_tried_again(server, cache, name, caplog):
    server.failures = 2
    assert fetch(f"{server.url}/{name}").read_bytes() == CONTENT
    assert len(server.requests) == 3
    assert caplog.text.count("trying again") == 2


def test_lasting_failure_names_address_reason_and_remedy(server, cache):
    server.failures = 9
    with pytest.raises(StorageError) as caught:
        fetch(f"{server.url}/cut.bin")
    message = str(caught.value)
    assert message.startswith(
        f"{server.url}/cut.bin: cannot be downloaded (the connection ended after 512000 of 1024000"
    )
    assert "give its path" in message and f"put it at {cache}/cut-" in message and "\n" not in message
    assert len(server.requests) == download.NUM_ATTEMPTS
    assert visible(cache) == []


def test_missing_file_is_not_asked_for_again(server, cache):
    with pytest.raises(StorageError, match="HTTP 404"):
        fetch(f"{server.url}/missing.bin")
    assert len(server.requests) == 1


def test_no_server_is_one_line(cache, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "FIRST_WAIT_SECONDS", 0.01)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        StorageError, match=rf"^http://127.0.0.1:{port}/a.bin: cannot be downloaded \(Connection refused"
    ):
        fetch(f"http://127.0.0.1:{port}/a.bin")


def test_silent_server_times_out(server, cache, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.1)
    with pytest.raises(StorageError, match="/slow.bin: cannot be downloaded"):
        fetch(f"{server.url}/slow.bin")


def test_file_put_into_the_cache_by_hand_is_used(server, cache):
    server.failures = 9
    with pytest.raises(StorageError) as caught:
        fetch(f"{server.url}/cut.bin")
    place = str(caught.value).rpartition(" put it at ")[2]
    with open(place, "wb") as file:
        file.write(CONTENT)
    assert str(fetch(f"{server.url}/cut.bin")) == place
    assert (cache / (os.path.basename(place) + ".sha256")).read_text().strip() == DIGEST


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http:///x", "gopher://x/y"])
def test_other_schemes_are_refused(cache, url):
    with pytest.raises(ConfigError, match="only http:// and https://"):
        fetch(url)


def test_redirect_to_a_file_is_refused(server, cache):
    with pytest.raises(StorageError, match="HTTP 302 Found"):
        fetch(f"{server.url}/to_file")


def test_redirect_from_https_to_http_is_refused():
    request = download.urllib.request.Request("https://example.com/a")

    class Body:
        def close(self):
            pass

    with pytest.raises(download._TransferError, match="it redirects to http://example.com/a"):
        download._SafeRedirects().redirect_request(request, Body(), 302, "Found", {}, "http://example.com/a")


def test_credentials_reach_the_server_and_no_message(server, cache, caplog):
    url = server.url.replace("http://", "http://user:s%40cret@")
    with caplog.at_level(logging.DEBUG):
        path = fetch(f"{url}/a.bin?token=hidden")
        server.failures = 9
        with pytest.raises(StorageError) as caught:
            fetch(f"{url}/cut.bin?token=hidden")
    assert base64.b64decode(server.requests[0][1].split()[1]) == b"user:s@cret"
    assert server.requests[0][0] == "/a.bin?token=hidden"
    for text in (caplog.text, str(caught.value), str(path)):
        assert "cret" not in text and "hidden" not in text and "user" not in text


def test_one_process_downloads_and_the_others_wait(server, cache):
    program = f"from ppcls.utils.download import fetch; print(fetch({server.url + '/slow.bin'!r}))"
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    while not server.requests:
        time.sleep(0.01)
    time.sleep(0.3)  # for the others to find the lock
    server.release.set()
    paths = {process.communicate(timeout=300)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(paths) == 1 and len(server.requests) == 1


def test_cache_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/cache: cannot be written"):
        fetch(f"{server.url}/a.bin", directory=tmp_path / "file" / "cache")


def test_default_cache_is_in_the_home_directory(server, tmp_path, monkeypatch):
    monkeypatch.delenv("PPCLS_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch(f"{server.url}/a.bin").parent == tmp_path / ".cache" / "ppcls"


@pytest.mark.parametrize(
    ("path", "start", "end"),
    [
        ("a/Dense%20Net.pdparams", "Dense_Net-", ".pdparams"),
        ("..%2f..%2fpasswd", "passwd-", ""),
        (".hidden", "hidden-", ""),
        ("", "download-", ""),
        ("archive.tar.gz", "archive.tar-", ".gz"),
    ],
)
def test_names_in_the_cache_are_tame(path, start, end):
    name = download._cache_name(download.urllib.parse.urlsplit(f"http://example.com/{path}"))
    assert name.startswith(start) and name.endswith(end) and len(name) == len(start) + 8 + len(end)


def test_what_is_an_address():
    assert is_url("http://a/b") and is_url("file:///a")
    assert not is_url("output/best") and not is_url("C:/weights")
    assert without_secrets("output/best") == "output/best"
    assert without_secrets("https://u:p@a:80/b?c=d#e") == "https://a:80/b"
