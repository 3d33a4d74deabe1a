"""Server-sent events that end with their reader: when it leaves, and when it stops reading."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"

T = TypeVar("T")

_log = logging.getLogger(__name__)


def event(data: bytes) -> bytes:
    """One event of a stream."""
    return b"data: " + data + b"\n\n"


class StalledReaderError(Exception):
    """A client has left a stream unread for too long; its connection is given up."""


class ClientGoneError(Exception):
    """The client has closed the connection: there is nobody to answer."""


class EventStream(Response):
    """Sends events as they come. uvicorn tells nobody that a client left, so this one listens."""

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        on_end: Callable[[], None],
        stall_timeout_s: float,
    ) -> None:
        """Wrap.

        Args:
            events: whole events, some or none at a time.
            on_end: called in any case, once nothing more will be sent.
            stall_timeout_s: the longest that one chunk may take to go out.
        """
        self.status_code = 200
        self.background = None
        self.body = b""
        self.raw_headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),  # nginx would hold tokens back
        ]
        self._events = events
        self._on_end = on_end
        self._stall_timeout_s = stall_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the events end or the client does."""
        try:
            await until_gone(receive, self._send_all(send))
        except ClientGoneError:
            pass
        except StalledReaderError as error:
            _log.warning("%s", error)
        finally:
            self._on_end()
            await self._events.aclose()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for data in self._events:
            await self._send(send, data, more=True)
        await self._send(send, b"", more=False)

    async def _send(self, send: Send, data: bytes, *, more: bool) -> None:
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                await send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError as error:
            raise StalledReaderError(
                f"a client has not read for {self._stall_timeout_s:g} s: its request is aborted"
            ) from error


async def until_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do `work`, unless the client disconnects first; then it is cancelled.

    Raises:
        ClientGoneError: the client has left.
    """
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for each in (task, watcher):
            each.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def answer_unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Answer of `work`; an empty one, which nobody reads, if the client leaves before it."""
    try:
        return await until_gone(request.receive, work)
    except ClientGoneError:
        return Response(status_code=499)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
