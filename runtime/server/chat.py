"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from runtime.sampling_params import SamplingParams
from runtime.server.api_error import bad_request
from runtime.server.frontend import Frontend
from runtime.server.guard import tenant_salt
from runtime.server.job import Job
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
    return await _ChatJob(front, body, prompt).chat(request, params)


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


class _ChatJob(Job[ChatChunk]):
    """Shapes what the engine gives for one request."""

    def __init__(self, front: Frontend, body: ChatRequest, prompt: Prompt) -> None:
        super().__init__(front, body, [prompt], "chatcmpl")
        self._body = body
        self._prompt = prompt

    async def chat(self, request: Request, params: SamplingParams) -> Response:
        """Submit the conversation, and answer."""
        body, (name,) = self._body, self._request_ids
        ids = self._prompt.token_ids
        salt = tenant_salt(request.scope, body.cache_salt)
        submit = Submit(name, ids, params, None, body.priority or 0, salt)
        return await self.respond(request, [submit], _NAMES)

    def _encode_whole(self, advances: Sequence[Advance]) -> bytes:
        (advance,) = advances
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
        return answer.encode()

    def _opening(self) -> list[ChatChunk]:
        role = ChatDelta(role="assistant", content="")
        return [self._piece(number, role) for number in range(self._body.n or 1)]

    def _news(self, index: int, advance: Advance) -> list[ChatChunk]:
        found = []
        for delta in advance.deltas:
            if delta.num_tokens:
                news = ChatDelta(content=delta.text)
                found.append(self._piece(delta.index, news, self._logprobs(delta)))
            if delta.finish_reason is not None:
                found.append(self._piece(delta.index, ChatDelta(), None, delta))
        return found

    def _piece(
        self,
        number: int,
        news: ChatDelta,
        logprobs: ChatLogprobs | None = None,
        end: Delta | None = None,
    ) -> ChatChunk:
        choice = ChatChunkChoice(
            index=number,
            delta=news,
            logprobs=logprobs,
            finish_reason=None if end is None else finish_reason(end.finish_reason),
        )
        if end is not None:
            choice.stop_reason = end.stop_reason
        return self._answer([choice])

    def _empty_chunk(self) -> ChatChunk:
        return self._answer([])

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
