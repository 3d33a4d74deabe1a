"""What one HTTP request has going with the engine: one engine request per prompt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from runtime.server.messages import Advance, Delta, Refused, TokenScores


class EngineGoneError(Exception):
    """The engine process has ended; what it was computing is lost."""


class EngineFailedError(Exception):
    """The engine has failed on this request, and on no other."""


class RequestRejectedError(Exception):
    """The engine did not take the request."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self.refused = refused


@dataclass(slots=True)
class _Gain:
    """Deltas of one completion, joined until they are read: a slow reader gets fewer, larger ones.

    What waits here is bounded by the completion's own length.
    """

    texts: list[str] = field(default_factory=list)
    num_tokens: int = 0
    scores: list[TokenScores] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    def add(self, delta: Delta) -> None:
        self.texts.append(delta.text)
        self.num_tokens += delta.num_tokens
        if delta.scores is not None:
            self.scores = [*(self.scores or ()), *delta.scores]
        self.finish_reason = delta.finish_reason
        self.stop_reason = delta.stop_reason

    def delta(self, index: int) -> Delta:
        return Delta(
            index,
            "".join(self.texts),
            self.num_tokens,
            self.scores,
            self.finish_reason,
            self.stop_reason,
        )


class _Prompt:
    """Progress of one engine request."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.is_admitted = False
        self.is_finished = False
        self.has_failed = False
        self.num_cached_tokens = 0
        self.prompt_scores: list[TokenScores | None] | None = None
        self.gains: dict[int, _Gain] = {}

    def take(self) -> Advance | None:
        """What has come since the last call, None if nothing has; a failure is no end to tell."""
        has_ended = self.is_finished and not self.has_failed
        if not self.gains and not has_ended:
            return None
        deltas = [gain.delta(index) for index, gain in sorted(self.gains.items())]
        self.gains = {}
        scores, self.prompt_scores = self.prompt_scores, None
        return Advance(self.request_id, deltas, has_ended, self.num_cached_tokens, scores)


class Exchange:
    """Collects what the engine tells about a group of requests, until one reader takes it.

    async for index, advance in exchange.advances():    # index of the prompt
        ...
    exchange.close()                                    # in any case: aborts what is live
    """

    def __init__(self, request_ids: Sequence[str], abort: Callable[[list[str]], None]) -> None:
        self._prompts = {name: _Prompt(name) for name in request_ids}
        self._abort = abort
        self._news = asyncio.Event()
        self._error: Exception | None = None
        self._is_closed = False
        self._wants_whole = False

    async def admitted(self) -> None:
        """Wait until the engine has taken every prompt.

        Raises:
            RequestRejectedError: it has refused one; the others are aborted.
            EngineGoneError: it has died.
        """
        while not all(prompt.is_admitted for prompt in self._prompts.values()):
            await self._wait()

    async def advances(self) -> AsyncIterator[tuple[int, Advance]]:
        """What is new, prompt by prompt, until all have ended.

        Raises:
            EngineFailedError, EngineGoneError: there will be no more.
        """
        live = dict(enumerate(self._prompts.values()))
        while live:
            found = [(index, prompt.take()) for index, prompt in live.items()]
            for index, advance in found:
                if advance is not None:
                    if advance.finished:
                        del live[index]
                    yield index, advance
            if live and not any(prompt.gains for prompt in live.values()):
                await self._wait()

    async def whole(self) -> list[Advance]:
        """Everything of every prompt, in their order, once all have ended.

        Raises:
            EngineFailedError, EngineGoneError: they will not.
        """
        self._wants_whole = True
        while not all(prompt.is_finished for prompt in self._prompts.values()):
            await self._wait()
        if self._error is not None:
            raise self._error
        found = [prompt.take() for prompt in self._prompts.values()]
        return [advance for advance in found if advance is not None]

    async def _wait(self) -> None:
        if self._error is None:
            await self._news.wait()
            self._news.clear()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Abort what has not ended; nothing more is taken in."""
        if self._is_closed:
            return
        self._is_closed = True
        live = [prompt.request_id for prompt in self._prompts.values() if not prompt.is_finished]
        if live:
            self._abort(live)

    # ---- called as messages arrive --------------------------------------------------------------

    def take_admission(self, request_id: str) -> None:
        """The engine has queued this request."""
        self._prompts[request_id].is_admitted = True
        self._news.set()

    def take_advance(self, advance: Advance) -> None:
        """A step has brought this request forward."""
        prompt = self._prompts[advance.request_id]
        for delta in advance.deltas:
            prompt.gains.setdefault(delta.index, _Gain()).add(delta)
        prompt.is_finished = advance.finished
        prompt.num_cached_tokens = advance.num_cached_tokens
        if advance.prompt_scores is not None:
            prompt.prompt_scores = advance.prompt_scores
        if advance.finished or not self._wants_whole:
            self._news.set()

    def fail(self, error: Exception, request_id: str | None = None) -> None:
        """End the whole exchange with an error; `request_id` is the request that has ended."""
        if request_id is not None:
            self._prompts[request_id].is_finished = True
            self._prompts[request_id].has_failed = True
        if self._error is None:
            self._error = error
        self._news.set()
