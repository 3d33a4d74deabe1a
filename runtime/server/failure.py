"""What clients see of a request that the server could not finish."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine
from typing import Any

import msgspec
from starlette.responses import Response

from runtime.server.api_error import error_body
from runtime.server.event_stream import event
from runtime.server.frontend import ENDINGS, to_api_error


async def answer_or_error(work: Coroutine[Any, Any, Response]) -> Response:
    """Answer of `work`; raises ApiError where the engine or the server gave out under it."""
    try:
        return await work
    except ENDINGS as error:
        raise to_api_error(error) from error


async def error_events(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Pass events on; the status is sent already, so a failure becomes an event of its own."""
    try:
        async for data in events:
            yield data
    except ENDINGS as error:
        found = to_api_error(error)
        yield event(msgspec.json.encode(error_body(found.status_code, str(found.detail))))
