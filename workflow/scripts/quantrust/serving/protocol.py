"""Connections: those whose request does not arrive are closed, and what is no HTTP is refused as all else is."""

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from quantrust.serving.refusal import invalid

HEAD_SECONDS = 10.0
"""How long a connection may take for the head of a request; longer than uvicorn keeps one that is silent."""


class Connection(H11Protocol):
    """A connection of uvicorn that knows how long it has been waiting for a request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._waiting_since = self.loop.time()
        self._watch = self.loop.call_later(HEAD_SECONDS, self._close_if_too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._watch.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._waiting_since = self.loop.time()
        super().on_response_complete()

    def _close_if_too_slow(self) -> None:
        waits = self.cycle is None or self.cycle.response_complete
        left = self._waiting_since + HEAD_SECONDS - self.loop.time() if waits else HEAD_SECONDS
        if left <= 0:
            self.transport.close()
        else:
            self._watch = self.loop.call_later(left, self._close_if_too_slow)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the form of every other refusal."""
        body = json.dumps(invalid("this is no HTTP request that can be read", code="invalid_http").body()).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        events: list[Any] = [
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
