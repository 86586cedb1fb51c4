"""Running the application: the socket, the log, and a stop that leaves nobody without a reply."""

import asyncio
import errno
import logging
import os
import queue
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging.handlers import QueueHandler, QueueListener
from types import FrameType
from typing import Any

import uvicorn

from quantrust.errors import INTERRUPTED, QuantrustError
from quantrust.serving.app import Desk, Served, build_app
from quantrust.serving.gate import LOCAL_NAMES, Gate
from quantrust.serving.metrics import Metrics
from quantrust.serving.protocol import Connection
from quantrust.serving.settings import STOPPING_SECONDS, ServingSettings, is_loopback
from quantrust.serving.worker import Model, Worker

MOST_CONNECTIONS = 900
"""Below the 1,024 files that a process may usually have open."""
LOG_LINES = 10_000
"""Lines that wait to be written at most; further ones are dropped, so that a log that is stuck stops no answer."""
UNANSWERED = 1
"""The exit code where a request that was accepted got no reply of the model before the server had to end."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    Attributes
    ----------
    socket : socket.socket
        Bound, and not yet listening, so that clients are refused until the model is loaded.
    host : str
        The IP address.
    port : int
    """

    socket: socket.socket
    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether it is reached from this machine alone."""
        return is_loopback(self.host)

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def bind(host: str, port: int) -> Address:
    """Take an address before anything is loaded.

    Parameters
    ----------
    host : str
        A name or an IP address of this machine.
    port : int
        0 for any that is free.

    Raises
    ------
    QuantrustError
        If there is no such address, or another program has it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise QuantrustError(
            f"--host {host}: no address of this name; expected 127.0.0.1, or another of yours"
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        advice = "; choose another --port" if error.errno == errno.EADDRINUSE else "; choose another --host or --port"
        raise QuantrustError(f"{host}, port {port}: cannot be listened at ({error.strerror}){advice}") from None
    return Address(listener, *listener.getsockname()[:2])


def serve(
    address: Address,
    settings: ServingSettings,
    load: Callable[[], tuple[Model, Served]],
    announce: Callable[[str], None],
) -> int:
    """Serve until a signal comes; then answer what was accepted, and refuse what comes later.

    Parameters
    ----------
    address : Address
    settings : ServingSettings
    load : callable
        Returns the model, and what there is to ask; called in the thread that owns the model.
    announce : callable
        Told the URL once questions are answered.

    Returns
    -------
    int
        The exit code: 0 after SIGTERM, 130 after Ctrl-C, `UNANSWERED` if a question had to be given up.
    """
    served: list[Served] = []

    def load_model() -> Model:
        model, what = load()
        served.append(what)
        return model

    worker = Worker(load_model, settings.batch_size, settings.limits.question_tokens)
    with _writing_log():
        worker.start()
        return asyncio.run(_serve(address, settings, served[0], worker, announce))


async def _serve(
    address: Address, settings: ServingSettings, served: Served, worker: Worker, announce: Callable[[str], None]
) -> int:
    metrics = worker.metrics = Metrics(tuple(served.points))
    desk = Desk(settings, served, worker, metrics)
    names = tuple(dict.fromkeys((*LOCAL_NAMES, address.url.split("/")[2].rpartition(":")[0])))
    app = Gate(build_app(desk), settings.api_key, names if address.loopback else None, metrics)
    server = _Server(_config(app, settings), desk)
    started = asyncio.ensure_future(server.serve(sockets=[address.socket]))
    while not server.started and not started.done():
        await asyncio.sleep(0.01)
    if not started.done():
        announce(address.url)
    await started
    whole = worker.stop(STOPPING_SECONDS / 2)
    _log.info("stopped: %d questions accepted, %d replied to", desk.accepted, desk.replied)
    if not whole or desk.in_hand:
        # A batch still runs, beyond the time of its requests. It cannot be interrupted, only be left behind.
        return UNANSWERED
    return INTERRUPTED if server.caught == signal.SIGINT else 0


def _config(app: Any, settings: ServingSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=int(settings.limits.seconds + STOPPING_SECONDS / 2),
    )


class _Server(uvicorn.Server):
    """Stops on the first signal and leaves at once on the second; uvicorn itself dies of the signal in the end."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self.desk, self.caught = desk, 0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let signals stop the server, and no longer once it has stopped."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take no more questions; on a second signal, do not wait for those in hand either."""
        if self.should_exit:
            self.force_exit = True
            return
        self.caught = sig
        self.should_exit = self.desk.stopping = True


class _Dropping(QueueHandler):
    """Drops a line rather than wait for room."""

    def enqueue(self, record: logging.LogRecord) -> None:
        """Let a line wait to be written, if there is room."""
        with suppress(queue.Full):
            self.queue.put_nowait(record)


@contextmanager
def _writing_log() -> Iterator[None]:
    """Write the log of the server to standard error, in a thread of its own."""
    log = logging.getLogger("quantrust.serving")
    lines: queue.Queue[logging.LogRecord] = queue.Queue(LOG_LINES)
    writer = logging.StreamHandler(sys.stderr)
    writer.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    listener, handler = QueueListener(lines, writer), _Dropping(lines)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        log.removeHandler(handler)
        log.propagate = True


def leave(code: int) -> None:
    """End the process at once if the model still computes, which no Python thread can stop."""
    if code == UNANSWERED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
