"""uvicorn as this server runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from runtime.server.config import ServerConfig
from runtime.server.http_protocol import ApiProtocol

_CLOSE_S = 2
"""At the end, for connections whose clients do not read."""


class HttpListener(uvicorn.Server):
    """Leaves signals to its owner, who sets `should_exit`."""

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=ApiProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=config.log_requests,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=config.max_header_bytes,
                timeout_graceful_shutdown=_CLOSE_S,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no handlers."""
        yield
