"""uvicorn's HTTP protocol, with its own refusals in the API's shape and a bound on idle starts."""

from __future__ import annotations

import asyncio
from typing import cast

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

from runtime.server.api_error import error_body

HEADER_TIMEOUT_S = 30.0
"""A new connection must have sent a request's headers within this."""


class ApiProtocol(H11Protocol):
    """Answers what is not HTTP at all with a JSON error."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock of the first request."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._starting = self.loop.call_later(HEADER_TIMEOUT_S, self._check_started)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock, which would keep all that belongs to the connection until it rings."""
        self._starting.cancel()
        super().connection_lost(exc)

    def _check_started(self) -> None:
        has_request: bool = bool(self.scope)  # uvicorn declares it as always there
        if not has_request and not self.transport.is_closing():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are no request."""
        body = msgspec.json.encode(error_body(400, msg))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        events = (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        for each in events:
            data = self.conn.send(each)
            if data:
                self.transport.write(data)
        self.transport.close()
