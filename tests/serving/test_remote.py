"""Images of other hosts: fetched from those allowed by name at public addresses, and from nowhere else."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from quantrust.errors import QuantrustError
from quantrust.serving import remote
from quantrust.serving.refusal import Refusal
from quantrust.serving.remote import fetch, host_to_allow, is_public

CONTENT = b"picture" * 1000


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path, and remembers the hosts that it was asked for as."""

    hosts: list[str]

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        if self.path.startswith("/redirect"):
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
            return
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path == "/gzip":
            self.send_header("Content-Encoding", "gzip")
        if self.path in ("/whole?a=1", "/cut", "/gzip"):
            self.send_header("Content-Length", str(len(CONTENT) + (self.path == "/cut")))
        self.end_headers()
        for _ in range(50 if self.path == "/slow" else 1):
            self.wfile.write(CONTENT)
            if self.path == "/slow":
                self.wfile.flush()
                time.sleep(0.05)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server on this machine that `images.test` leads to, with this machine's address taken as public."""
    handler = type("Here", (Handler,), {"hosts": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    resolved = []

    def resolve(name: str, port: int, **_: object) -> list:
        resolved.append(name)
        # Another answer to the next question, as a hostile name server gives it.
        address = "127.0.0.1" if len(resolved) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(remote, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr(remote.socket, "getaddrinfo", resolve)
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()
    assert len(resolved) <= 1


def from_here(port: int, path: str, max_bytes: int = 10**6, seconds: float = 20.0) -> bytes:
    host = f"images.test:{port}"
    return fetch(f"http://{host}{path}", frozenset({host}), max_bytes, seconds)


def test_an_image_is_fetched_from_the_address_that_was_checked(port: int) -> None:
    """The name is resolved once: a second answer of its name server is never asked for."""
    assert from_here(port, "/whole?a=1") == CONTENT


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/redirect", "status 302, a redirect, which is not followed"),
        ("/missing", "status 404"),
        ("/gzip", "in an encoding that was not asked for"),
        ("/cut", "could not be fetched|ended before it was whole"),
    ],
)
def test_what_is_no_whole_file_is_refused(port: int, path: str, reason: str) -> None:
    with pytest.raises(Refusal, match=reason) as caught:
        from_here(port, path)
    assert caught.value.status == 400


def test_too_many_bytes_are_refused_wherever_they_come_from(port: int) -> None:
    with pytest.raises(Refusal, match="has more than 6,999 bytes"):
        from_here(port, "/without-length", max_bytes=len(CONTENT) - 1)


def test_a_file_that_comes_in_drops_is_given_up(port: int) -> None:
    with pytest.raises(Refusal, match=r"took too long|could not be fetched"):
        from_here(port, "/slow", seconds=0.3)


@pytest.mark.parametrize(
    "url",
    [
        "http://other.test/x",
        "http://images.test.other.test/x",
        "http://images.test:81/x",
        "https://images.test:80/x",
        "ftp://images.test/x",
        "file:///etc/passwd",
        "http://user@images.test/x",
        "http://images.test@other.test/x",
        "http://images.test:x/x",
        "http://[::1/x",
        "http://images.test/a b",
        "http://images.test/\r\nX: y",
        "http://images.test/ä",
        "http://images.test/" + "x" * 4000,
        "//images.test/x",
        "",
    ],
)
def test_other_addresses_are_refused_without_a_look_at_them(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(remote.socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was resolved"))
    with pytest.raises(Refusal) as caught:
        fetch(url, frozenset({"images.test"}), 10, 1.0)
    assert (caught.value.status, caught.value.code) == (400, "remote_image_refused")


def test_without_allowed_hosts_nothing_is_fetched() -> None:
    with pytest.raises(Refusal, match="this server fetches no images"):
        fetch("https://images.test/x.png", frozenset(), 10, 1.0)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::"),
    ],
)
def test_addresses_that_are_not_public_are_none_to_fetch_from(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    assert not is_public(address)
    found = [(0, 0, 0, "", (public, 80)) for public in ("93.184.215.14", address)]
    monkeypatch.setattr(remote.socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(remote.socket, "socket", lambda *_: pytest.fail("a connection was made"))
    with pytest.raises(Refusal, match="leads to an address that is not public"):
        fetch("http://images.test/x", frozenset({"images.test"}), 10, 1.0)


def test_public_addresses_are_public() -> None:
    assert all(map(is_public, ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:8.8.8.8")))


@pytest.mark.parametrize("given", ["", "a b", "http://x", "x/y", "*", "x:y", "x:99999", "-x", "[::1]"])
def test_what_is_no_host_cannot_be_allowed(given: str) -> None:
    with pytest.raises(QuantrustError, match="is no name of a host"):
        host_to_allow(given)


def test_hosts_are_allowed_in_any_letters() -> None:
    assert host_to_allow("Images.Example.ORG:8443") == "images.example.org:8443"
