"""What every request passes first: who may ask, what is said to them on any failure, and one line in the log."""

import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from quantrust.serving.metrics import Metrics
from quantrust.serving.refusal import Refusal, internal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/", "/health")
"""Places that need no key: they hold nothing of the model or of its use."""
PLACES = {
    "/": "page",
    "/health": "health",
    "/metrics": "metrics",
    "/v1/chat/completions": "chat",
    "/v1/models": "models",
}
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Of every reply that has none of its own by these names."""
HUNG_UP = 499
"""The status that the log and the metrics give a request whose client did not wait for the reply."""
_log = logging.getLogger(__name__)


class Gate:
    """An ASGI application around another one.

    Parameters
    ----------
    app : callable
        The application within.
    api_key : str or None
        What every request outside `OPEN` must bring.
    names : collection of str or None
        The hosts under which the server may be asked for, in lower case and without a port; None for any. A browser can
        be brought to ask a server of its own machine under the name of a hostile page, but never under these.
    metrics : Metrics
    """

    def __init__(self, app: App, api_key: str | None, names: tuple[str, ...] | None, metrics: Metrics) -> None:
        self.app, self.names, self.metrics = app, names, metrics
        self._key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or say why not; whatever fails within is a reply too."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.monotonic()
        identifier = f"chatcmpl-{secrets.token_hex(12)}"
        scope["state"] = {"identifier": identifier, "note": ""}
        status = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                more = {**HEADERS, "x-request-id": identifier}
                message["headers"] = list(message["headers"]) + [
                    (name.encode(), value.encode()) for name, value in more.items() if name.encode() not in given
                ]
            await send(message)

        try:
            try:
                self._check(scope)
                await self.app(scope, receive, send_with_headers)
            except Refusal as refusal:
                await _send_refusal(refusal, send_with_headers)
            except Exception as error:
                _log.error("%s fault %s", identifier, place_of(error))
                if status is None:
                    await _send_refusal(internal(), send_with_headers)
        finally:
            self._note(scope, status, identifier, time.monotonic() - start)

    def _note(self, scope: Scope, status: int | None, identifier: str, seconds: float) -> None:
        place = place_in(scope["path"])
        if scope["state"].get("hung_up") or status is None:
            status = HUNG_UP
        self.metrics.requests.labels(place, str(status)).inc()
        note = scope["state"]["note"]
        _log.info("%s %s %d %.3f s%s", identifier, place, status, seconds, note and f" {note}")

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if self.names is not None and _host_name(headers.get(b"host", b"")) not in self.names:
            raise Refusal(
                421,
                f"this server is asked for under another name; expected one of {', '.join(self.names)} as its host",
                "wrong_host",
            )
        if self._key is None or scope["path"] in OPEN:
            return
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        # Takes as long for any wrong key, however much of it is right.
        if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._key):
            raise Refusal(
                401,
                "the key is missing or wrong; send it as Authorization: Bearer KEY",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def place_in(path: str) -> str:
    """Return how metrics and log call a path: one of a few words, whatever is asked for."""
    return PLACES.get(path, "models" if path.startswith("/v1/models/") else "other")


def place_of(error: BaseException) -> str:
    """Return an error's kind and where it was raised, without its message, which may hold a question."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" in {trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}"
    return f"{type(error).__name__}{where}"


def _host_name(value: bytes) -> str:
    """Return the host of a header without its port."""
    name = value.decode("latin-1").strip().lower()
    head, colon, port = name.rpartition(":")
    return head if colon and port.isdigit() else name


async def _send_refusal(refusal: Refusal, send: Send) -> None:
    # Starlette takes a while to import, and the other commands do without it
    from starlette.responses import JSONResponse

    response = JSONResponse(refusal.body(), refusal.status, refusal.headers)
    await response({"type": "http"}, _nothing, send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
