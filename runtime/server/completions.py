"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from runtime.sampling_params import SamplingParams
from runtime.server.api_error import bad_request
from runtime.server.frontend import Frontend
from runtime.server.guard import tenant_salt
from runtime.server.job import Job
from runtime.server.messages import Advance, Delta, Submit, TokenScores
from runtime.server.prompts import Prompt, check_prompts, completion_prompts, output_bound
from runtime.server.requests import CompletionRequest
from runtime.server.responses import (
    CompletionAnswer,
    CompletionChoice,
    CompletionLogprobs,
    finish_reason,
)
from runtime.server.scores import completion_logprobs, prompt_logprobs

_NAMES = {"prompt_token_ids": "prompt"}


async def complete(front: Frontend, body: CompletionRequest, request: Request) -> Response:
    """Answer a completion request, whole or as a stream."""
    front.require_ready()
    front.require_model(body.model)
    body.check_stream_options()
    special = body.add_special_tokens is not False
    prompts = await completion_prompts(front, body.prompt, special=special)
    check_prompts(front, prompts, "prompt")
    _check_text(front, body)
    params = _params(front, body, prompts)
    return await _CompletionJob(front, body, prompts).complete(request, params)


def _check_text(front: Frontend, body: CompletionRequest) -> None:
    if body.stop and not front.has_tokenizer:
        raise bad_request("stop", "stop: this model has no tokenizer to find texts with")
    if body.echo and not front.has_tokenizer:
        raise bad_request("echo", "echo: this model has no tokenizer to write the prompt with")
    if body.max_tokens == 0 and not body.echo:
        raise bad_request("max_tokens", "max_tokens: 0 only with echo=true")
    if body.priority and not front.facts.has_priorities:
        raise bad_request("priority", "priority: only under --scheduling-policy priority")


def _params(front: Frontend, body: CompletionRequest, prompts: list[Prompt]) -> SamplingParams:
    wanted = 16 if body.max_tokens is None else body.max_tokens
    if "max_tokens" in body.model_fields_set:
        output_bound(front, prompts, max(1, wanted), "max_tokens")
    scored = body.prompt_logprobs
    if scored is None and body.echo:
        scored = body.logprobs
    return body.sampling_params(
        front.defaults,
        max_tokens=max(1, wanted),
        logprobs=body.logprobs,
        prompt_logprobs=scored,
        names=_NAMES,
    )


@dataclass(slots=True)
class _Echo:
    """What stands before a completion's own tokens."""

    text: str = ""
    scores: list[TokenScores | None] | None = None
    first_text: str = ""


class _CompletionJob(Job[CompletionAnswer]):
    """Shapes what the engine gives for one request."""

    def __init__(self, front: Frontend, body: CompletionRequest, prompts: list[Prompt]) -> None:
        self._shows_output = body.max_tokens != 0
        super().__init__(front, body, prompts, "cmpl", counts_output=self._shows_output)
        self._body = body
        self._prompts = prompts
        self._per_prompt = body.n or 1
        self._offsets: dict[int, int] = {}  # choice -> characters that its tokens have had so far

    async def complete(self, request: Request, params: SamplingParams) -> Response:
        """Submit every prompt, and answer."""
        priority = self._body.priority or 0
        salt = tenant_salt(request.scope, self._body.cache_salt)
        submits = [
            Submit(name, prompt.token_ids, params, None, priority, salt)
            for name, prompt in zip(self._request_ids, self._prompts, strict=True)
        ]
        return await self.respond(request, submits, _NAMES)

    def _encode_whole(self, advances: Sequence[Advance]) -> bytes:
        answer = self._empty_chunk()
        for index, advance in enumerate(advances):
            answer.choices.extend(self._choices(index, advance))
        answer.usage = self._count.usage()
        return answer.encode()

    def _news(self, index: int, advance: Advance) -> list[CompletionAnswer]:
        return [self._answer([choice]) for choice in self._choices(index, advance)]

    def _empty_chunk(self) -> CompletionAnswer:
        return self._answer([])

    def _answer(self, choices: list[CompletionChoice]) -> CompletionAnswer:
        return CompletionAnswer(
            id=self._name,
            object="text_completion",
            created=self._created_s,
            model=self._front.model_name,
            choices=choices,
        )

    def _choices(self, index: int, advance: Advance) -> list[CompletionChoice]:
        return [self._choice(index, advance, delta) for delta in advance.deltas]

    def _choice(self, index: int, advance: Advance, delta: Delta) -> CompletionChoice:
        number = index * self._per_prompt + delta.index
        is_first = number not in self._offsets
        offset = self._offsets.setdefault(number, 0)
        echo = self._echo(index, advance) if is_first and self._body.echo else _Echo()
        text = echo.text
        logprobs: CompletionLogprobs | None = None
        scores: list[TokenScores | None] = list(echo.scores or ())
        if self._shows_output:
            text += delta.text
            scores.extend(delta.scores or ())
        if self._body.logprobs is not None:
            logprobs = completion_logprobs(scores, [echo.first_text], offset)
            self._offsets[number] += sum(map(len, logprobs.tokens))
        choice = CompletionChoice(
            index=number,
            text=text,
            logprobs=logprobs,
            finish_reason=finish_reason(delta.finish_reason),
            stop_reason=delta.stop_reason,
        )
        if is_first and self._body.prompt_logprobs is not None and advance.prompt_scores:
            choice.prompt_logprobs = prompt_logprobs(advance.prompt_scores)
        return choice

    def _echo(self, index: int, advance: Advance) -> _Echo:
        prompt = self._prompts[index]
        tokenizer = self._front.tokenizer
        text = prompt.text
        if text is None:
            text = tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
        first = tokenizer.decode(prompt.token_ids[:1], skip_special_tokens=False)
        return _Echo(text, advance.prompt_scores, first)
