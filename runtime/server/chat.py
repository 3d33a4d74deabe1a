"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import Response

from runtime.sampling_params import SamplingParams
from runtime.server.api_error import bad_request
from runtime.server.event_stream import DONE, EventStream, answer_unless_gone, event
from runtime.server.exchange import Exchange
from runtime.server.failure import answer_or_error, error_events
from runtime.server.frontend import Frontend
from runtime.server.messages import Advance, Delta, Submit
from runtime.server.prompts import (
    Prompt,
    check_prompts,
    encode_text,
    output_bound,
    render_chat,
)
from runtime.server.requests import ChatRequest
from runtime.server.responses import (
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    finish_reason,
)
from runtime.server.scores import chat_logprobs, prompt_logprobs
from runtime.server.usage import UsageCount

_NAMES = {"prompt_token_ids": "messages", "logprobs": "top_logprobs"}


async def chat(front: Frontend, body: ChatRequest, request: Request) -> Response:
    """Answer a conversation, whole or as a stream."""
    front.require_ready()
    front.require_model(body.model)
    _check(front, body)
    text = await render_chat(
        front,
        body.messages,
        body.chat_template_kwargs,
        add_generation_prompt=body.add_generation_prompt is not False,
    )
    # The template has written the special tokens.
    prompt = await encode_text(front, text, "messages", special=bool(body.add_special_tokens))
    check_prompts(front, [prompt], "messages")
    params = _params(front, body, prompt)
    stem, (request_id,) = front.new_ids(1)
    submit = Submit(request_id, prompt.token_ids, params, None, body.priority or 0, body.cache_salt)
    job = _Job(front, body, prompt, f"chatcmpl-{stem}", int(time.time()))

    async def work() -> Response:
        exchange = await front.submit([submit], _NAMES)
        if body.stream:
            return EventStream(job.events(exchange), exchange.close, front.config.stall_timeout_s)
        try:
            return await answer_or_error(job.whole(exchange))
        finally:
            exchange.close()

    return await answer_unless_gone(request, work())


def _check(front: Frontend, body: ChatRequest) -> None:
    body.check_stream_options()
    if body.top_logprobs is not None and not body.logprobs:
        raise bad_request("top_logprobs", "top_logprobs: only with logprobs=true")
    both = (body.max_tokens, body.max_completion_tokens)
    if None not in both and both[0] != both[1]:
        raise bad_request(
            "max_tokens", "max_tokens and max_completion_tokens are the same: give one of them"
        )
    if body.priority and not front.facts.has_priorities:
        raise bad_request("priority", "priority: only under --scheduling-policy priority")


def _params(front: Frontend, body: ChatRequest, prompt: Prompt) -> SamplingParams:
    field = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    wanted = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    if wanted is not None:
        output_bound(front, [prompt], wanted, field)
    return body.sampling_params(
        front.defaults,
        max_tokens=wanted,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        prompt_logprobs=body.prompt_logprobs,
        names={**_NAMES, "max_tokens": field},
    )


class _Job:
    """Shapes what the engine gives for one request."""

    def __init__(
        self, front: Frontend, body: ChatRequest, prompt: Prompt, name: str, created_s: int
    ) -> None:
        self._front = front
        self._body = body
        self._name = name
        self._created_s = created_s
        self._count = UsageCount([prompt])

    async def whole(self, exchange: Exchange) -> Response:
        """Everything at once."""
        (advance,) = await exchange.whole()
        self._count.add(0, advance)
        answer = ChatAnswer(
            id=self._name,
            object="chat.completion",
            created=self._created_s,
            model=self._front.model_name,
            choices=[self._choice(delta) for delta in advance.deltas],
            usage=self._count.usage(),
        )
        if self._body.prompt_logprobs is not None and advance.prompt_scores is not None:
            answer.prompt_logprobs = prompt_logprobs(advance.prompt_scores)
        return Response(answer.encode(), media_type="application/json")

    async def events(self, exchange: Exchange) -> AsyncGenerator[bytes, None]:
        """Chunk by chunk."""
        async for data in error_events(self._chunks(exchange)):
            yield data
        yield DONE

    async def _chunks(self, exchange: Exchange) -> AsyncGenerator[bytes, None]:
        yield b"".join(
            self._chunk(number, ChatDelta(role="assistant", content=""))
            for number in range(self._body.n or 1)
        )
        async for _, advance in exchange.advances():
            self._count.add(0, advance)
            yield b"".join(self._advance(advance))
        if self._body.includes_usage:
            last = self._answer([])
            last.usage = self._count.usage()
            yield event(last.encode())

    def _advance(self, advance: Advance) -> list[bytes]:
        found = []
        for delta in advance.deltas:
            if delta.num_tokens:
                news = ChatDelta(content=delta.text)
                found.append(self._chunk(delta.index, news, self._logprobs(delta)))
            if delta.finish_reason is not None:
                found.append(self._chunk(delta.index, ChatDelta(), None, delta))
        return found

    def _chunk(
        self,
        number: int,
        news: ChatDelta,
        logprobs: ChatLogprobs | None = None,
        end: Delta | None = None,
    ) -> bytes:
        choice = ChatChunkChoice(
            index=number,
            delta=news,
            logprobs=logprobs,
            finish_reason=None if end is None else finish_reason(end.finish_reason),
        )
        if end is not None:
            choice.stop_reason = end.stop_reason
        answer = self._answer([choice])
        if self._body.includes_usage:
            running = self._body.includes_running_usage
            answer.usage = self._count.usage() if running else None
        return event(answer.encode())

    def _answer(self, choices: list[ChatChunkChoice]) -> ChatChunk:
        return ChatChunk(
            id=self._name,
            object="chat.completion.chunk",
            created=self._created_s,
            model=self._front.model_name,
            choices=choices,
        )

    def _choice(self, delta: Delta) -> ChatChoice:
        reason = finish_reason(delta.finish_reason)
        assert reason is not None, "a whole answer has ended"
        return ChatChoice(
            index=delta.index,
            message=ChatMessage(role="assistant", content=delta.text),
            logprobs=self._logprobs(delta),
            finish_reason=reason,
            stop_reason=delta.stop_reason,
        )

    def _logprobs(self, delta: Delta) -> ChatLogprobs | None:
        if not self._body.logprobs:
            return None
        return chat_logprobs(delta.scores or [], self._body.top_logprobs or 0)
