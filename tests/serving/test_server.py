"""A server as a process: connections that hang up, crawl or talk nonsense, and signals."""

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from quantrust.errors import QuantrustError
from quantrust.serving.server import bind
from serving.served import CHAT, SLOW, body, data_url, picture, request_bytes, rule, serving, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    """A server of the rule."""
    with serving(tmp_path_factory.mktemp("server")) as process:
        yield process
        assert process.stop() == 0
        log = process.log.read_text()
        assert "Traceback" not in log and " 500 " not in log


def raw(url: str) -> socket.socket:
    """Return a connection on which anything can be sent."""
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def is_closed(url: str) -> bool:
    """Return whether new connections are refused."""
    try:
        raw(url).close()
    except ConnectionRefusedError:
        return True
    return False


def test_what_is_no_http_is_refused_in_the_shape_of_all_errors(server) -> None:
    with raw(server.url) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        reply = connection.makefile("rb").read()
    head, _, content = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(content)["error"]["code"] == "invalid_http"


def test_a_client_that_hangs_up_costs_nobody_else_anything(server) -> None:
    with raw(server.url) as connection:
        connection.sendall(request_bytes(json.dumps(body(f"{SLOW} one")).encode()))
        time.sleep(0.1)
    with server.client() as client:
        reply = client.post(CHAT, json=body("two"))
    assert reply.json()["quantrust"]["confidence"] == rule(picture(), "two")[1]
    wait_until(lambda: " chat 499 " in server.log.read_text())


def test_one_connection_serves_many_questions(server) -> None:
    with server.client() as client:
        for number in range(20):
            reply = client.post(CHAT, json=body(f"q{number}", data_url(picture(number))))
            assert reply.json()["quantrust"]["confidence"] == rule(picture(number), f"q{number}")[1]


def test_the_key_and_the_question_are_in_no_process_list(server) -> None:
    assert b"Bearer" not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_a_server_once_what_it_accepted_is_answered(tmp_path: Path, sent: int, code: int) -> None:
    gate = tmp_path / "gate"
    with serving(tmp_path, gate=str(gate), batch_size=2) as server, ThreadPoolExecutor(8) as threads:

        def ask(number: int) -> httpx2.Response:
            with server.client() as client:
                return client.post(CHAT, json=body(f"q{number}"))

        asked = [threads.submit(ask, number) for number in range(8)]
        with server.client() as client:
            wait_until(lambda: "in_hand 8.0" in client.get("/metrics").text)
        server.process.send_signal(sent)
        wait_until(lambda: is_closed(server.url))
        gate.touch()
        replies = [future.result() for future in asked]
        for number, reply in enumerate(replies):
            assert reply.json()["quantrust"]["confidence"] == rule(picture(), f"q{number}")[1]
        assert server.process.wait(60) == code
        assert "stopped: 8 questions accepted, 8 replied to" in server.log.read_text()


def test_a_head_that_does_not_arrive_ends_the_connection(tmp_path: Path) -> None:
    with serving(tmp_path, head_seconds=0.5) as server:
        with raw(server.url) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
            assert connection.makefile("rb").read() == b""
        with raw(server.url) as connection, connection.makefile("rb") as replies:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea")
            assert b'{"status":"ok"}' in replies.read()
        assert server.stop() == 0


def test_a_port_that_is_taken_and_a_host_that_is_not_there_are_refused() -> None:
    first = bind("127.0.0.1", 0)
    assert first.loopback and first.url == f"http://127.0.0.1:{first.port}"
    first.socket.listen()
    with pytest.raises(
        QuantrustError, match=r"cannot be listened at \(Address already in use\); choose another --port"
    ):
        bind("127.0.0.1", first.port)
    first.socket.close()
    with pytest.raises(QuantrustError, match="choose another --host"):
        bind("192.0.2.1", 0)
    with pytest.raises(QuantrustError, match="no address of this name"):
        bind("no such host", 0)
