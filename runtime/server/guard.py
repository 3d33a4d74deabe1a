"""Stands before the application: keys, headers, sizes. It trusts nothing that names a route twice.

What is open is decided by the path that the router uses, never by a URL put together with the Host
header (the flaw behind CVE-2026-48710); everything that is not listed as open is closed.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable
from hashlib import sha256

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.server.api_error import ApiError, error_response
from runtime.server.config import ServerConfig

OPEN_PATHS = frozenset({"/health", "/"})
"""Answered without a key: what load balancers ask, and a page that says nothing by itself."""


_TENANT = "pagetune.tenant"


def tenant_salt(scope: Scope, salt: str | None) -> str | None:
    """A request's cache salt, told apart by its key where there are several.

    Whoever shares cached prefixes with another learns from their times what the other has sent.
    """
    tenant: str | None = scope.get(_TENANT)
    return salt if tenant is None else f"{tenant} {salt or ''}"


class Guard:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self._app = app
        self._config = config
        self._digests = [_digest(key.encode()) for key in config.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_headers(scope)
            self._check_key(scope)
            bounded = _BoundedBody(scope, receive, self._config)
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, bounded, send)

    def _check_headers(self, scope: Scope) -> None:
        headers = scope["headers"]
        size = sum(len(name) + len(value) for name, value in headers)
        config = self._config
        if len(headers) > config.max_headers or size > config.max_header_bytes:
            raise ApiError(
                431, f"at most {config.max_headers} headers of {config.max_header_bytes} bytes"
            )

    def _check_key(self, scope: Scope) -> None:
        if not self._digests or scope["path"] in OPEN_PATHS:
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        digest = _digest(key.strip())
        # All are compared, each in constant time: the answer's time says nothing about any key.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if scheme.lower() != b"bearer" or not any(matches):
            raise ApiError(
                401,
                "a valid API key is needed: Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if len(self._digests) > 1:
            scope[_TENANT] = digest.hex()


class _BoundedBody:
    """Receives a request's body up to its bounds."""

    def __init__(self, scope: Scope, receive: Receive, config: ServerConfig) -> None:
        self._receive = receive
        self._config = config
        self._num_bytes = 0
        self._is_complete = False
        declared = _declared(scope["headers"])
        if declared is not None and declared > config.max_body_bytes:
            raise self._too_large()

    async def __call__(self) -> Message:
        if self._is_complete:
            return await self._receive()
        try:
            async with asyncio.timeout(self._config.body_timeout_s):
                message = await self._receive()
        except TimeoutError as error:
            raise ApiError(408, "the body did not arrive in time") from error
        if message["type"] == "http.request":
            self._num_bytes += len(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)
            if self._num_bytes > self._config.max_body_bytes:
                raise self._too_large()
        return message

    def _too_large(self) -> ApiError:
        return ApiError(413, f"a body may have {self._config.max_body_bytes} bytes at most")


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()


def _declared(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 20 else None
    return None
