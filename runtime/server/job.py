"""One HTTP request's way through the engine, for both generating endpoints: whole, or by events."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from runtime.server.event_stream import DONE, EventStream, answer_unless_gone, event
from runtime.server.exchange import Exchange
from runtime.server.failure import answer_or_error, error_events
from runtime.server.frontend import Frontend
from runtime.server.messages import Advance, Submit
from runtime.server.prompts import Prompt
from runtime.server.responses import ChatChunk, CompletionAnswer
from runtime.server.sampling_fields import SamplingFields
from runtime.server.usage import UsageCount

ChunkT = TypeVar("ChunkT", CompletionAnswer, ChatChunk)


class Job(ABC, Generic[ChunkT]):
    """Submits, gathers, answers; an endpoint adds the shapes of its answers.

    Every chunk of a stream goes through `_chunk`, so that id, model and usage are put in once.
    """

    def __init__(
        self,
        front: Frontend,
        body: SamplingFields,
        prompts: Sequence[Prompt],
        prefix: str,
        *,
        counts_output: bool = True,
    ) -> None:
        """Take a request that has been checked.

        Args:
            front: of the server.
            body: what is common to both endpoints.
            prompts: of which each becomes a request of the engine.
            prefix: of the answer's id, "cmpl".
            counts_output: whether generated tokens are shown, and so counted.
        """
        stem, self._request_ids = front.new_ids(len(prompts))
        self._front = front
        self._options = body
        self._name = f"{prefix}-{stem}"
        self._created_s = int(time.time())
        self._count = UsageCount(prompts, counts_output=counts_output)

    async def respond(
        self, request: Request, submits: Sequence[Submit], names: Mapping[str, str]
    ) -> Response:
        """Have the engine work, until it is done or the client has left.

        Args:
            request: of the client.
            submits: one per prompt.
            names: the engine's field → the API's, where they differ.

        Raises:
            ApiError: the engine does not take it, or fails on it.
        """

        async def work() -> Response:
            exchange = await self._front.submit(submits, names)
            if self._options.stream:
                stall_timeout_s = self._front.config.stall_timeout_s
                return EventStream(self._events(exchange), exchange.close, stall_timeout_s)
            try:
                return await answer_or_error(self._whole(exchange))
            finally:
                exchange.close()

        return await answer_unless_gone(request, work())

    async def _whole(self, exchange: Exchange) -> Response:
        advances = await exchange.whole()
        for index, advance in enumerate(advances):
            self._count.add(index, advance)
        return Response(self._encode_whole(advances), media_type="application/json")

    async def _events(self, exchange: Exchange) -> AsyncGenerator[bytes, None]:
        async for data in error_events(self._chunks(exchange)):
            yield data
        yield DONE

    async def _chunks(self, exchange: Exchange) -> AsyncGenerator[bytes, None]:
        opening = self._opening()
        if opening:
            yield b"".join(map(self._chunk, opening))
        async for index, advance in exchange.advances():
            self._count.add(index, advance)
            yield b"".join(map(self._chunk, self._news(index, advance)))
        if self._options.includes_usage:
            last = self._empty_chunk()
            last.usage = self._count.usage()
            yield event(last.encode())

    def _chunk(self, chunk: ChunkT) -> bytes:
        """One event; its usage is null until the last one, unless it is to run along."""
        if self._options.includes_usage:
            running = self._options.includes_running_usage
            chunk.usage = self._count.usage() if running else None
        return event(chunk.encode())

    def _opening(self) -> list[ChunkT]:
        """Chunks that come before any token."""
        return []

    @abstractmethod
    def _empty_chunk(self) -> ChunkT:
        """A chunk without choices."""

    @abstractmethod
    def _news(self, index: int, advance: Advance) -> list[ChunkT]:
        """Chunks of what prompt `index` has gained."""

    @abstractmethod
    def _encode_whole(self, advances: Sequence[Advance]) -> bytes:
        """JSON of the whole answer; one advance per prompt, and all are counted."""
