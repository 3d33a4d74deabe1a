"""Speaks OpenAI's API to a server, and times what comes back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx

from runtime.bench.serve.outcome import Outcome
from runtime.bench.serve.prompts import Planned
from runtime.bench.serve.settings import LoadSettings
from runtime.errors import BenchmarkError

_ANSWER_S = 6 * 3600.0
_ERROR_CHARS = 300


class StreamError(Exception):
    """A server's error, or an answer that is none of the API's."""


class LoadClient:
    """Connections to one server."""

    def __init__(self, settings: LoadSettings, model: str = "") -> None:
        self._settings = settings
        self.model = model
        is_tls = settings.base_url.startswith("https")
        self._http = httpx.AsyncClient(
            base_url=settings.base_url.rstrip("/"),
            headers=dict(settings.headers),
            timeout=httpx.Timeout(_ANSWER_S, connect=30),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            verify=is_tls and settings.verify_tls,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def first_model(self) -> str:
        """Name of the first model that the server lists.

        Raises:
            BenchmarkError: it does not answer, or lists none.
        """
        answer = await self._ask("GET", "/v1/models")
        try:
            name: str = answer["data"][0]["id"]
        except (KeyError, IndexError, TypeError) as error:
            raise BenchmarkError("the server lists no model: give --model") from error
        return name

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until /v1/models is answered.

        Raises:
            BenchmarkError: it was not, in time.
        """
        end_s = time.monotonic() + timeout_s
        while True:
            try:
                await self._ask("GET", "/v1/models")
                return
            except BenchmarkError:
                if time.monotonic() >= end_s:
                    raise
            await asyncio.sleep(1)

    async def encode(self, text: str) -> list[int]:
        """Token ids of a text, by the server's tokenizer."""
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        answer = await self._ask("POST", "/tokenize", body)
        tokens: list[int] = answer["tokens"]
        return tokens

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, by the server's tokenizer."""
        body = {"model": self.model, "tokens": list(token_ids)}
        answer = await self._ask("POST", "/detokenize", body)
        text: str = answer["prompt"]
        return text

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        try:
            answer = await self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise BenchmarkError(f"{self._settings.base_url}{path}: {_words(error)}") from error
        if answer.status_code != 200:
            problem = _problem(answer.status_code, answer.text)
            raise BenchmarkError(f"{self._settings.base_url}{path}: {problem}")
        return answer.json()

    async def send(self, planned: Planned, queue_s: float = 0.0) -> Outcome:
        """Send a request, read its stream to the end; errors are part of the outcome."""
        outcome = Outcome(planned.prompt_len, time.perf_counter(), queue_s)
        try:
            await self._stream(self._body(planned), outcome)
        except (httpx.HTTPError, StreamError) as error:
            outcome.error = _words(error)
        return outcome

    def _body(self, planned: Planned) -> dict[str, Any]:
        settings = self._settings
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": planned.output_len,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if settings.is_chat:
            body["messages"] = [{"role": "user", "content": planned.prompt}]
        else:
            body["prompt"] = planned.prompt
        if settings.ignore_eos:
            body["ignore_eos"] = True
        return {**body, **settings.body}

    async def _stream(self, body: Mapping[str, Any], outcome: Outcome) -> None:
        last_s = outcome.start_s
        is_whole = False
        async with self._http.stream("POST", self._settings.endpoint, json=body) as answer:
            if answer.status_code != 200:
                await answer.aread()
                raise StreamError(_problem(answer.status_code, answer.text))
            async for chunk in _chunks(answer):
                now_s = time.perf_counter()
                if "error" in chunk:
                    raise StreamError(_message(chunk))
                usage = chunk.get("usage")
                if usage:
                    outcome.output_len = usage["completion_tokens"]
                    outcome.prompt_len = usage["prompt_tokens"]
                for choice in chunk.get("choices", ()):
                    is_whole = is_whole or choice.get("finish_reason") is not None
                    text = _text(choice)
                    if text is None:
                        continue
                    outcome.text += text
                    if outcome.ttft_s is None:
                        outcome.ttft_s = now_s - outcome.start_s
                    else:
                        outcome.itl_s.append(now_s - last_s)
                    last_s = now_s
        # The last token's time, as the tool that gave the names has it; not the stream's end.
        outcome.latency_s = last_s - outcome.start_s
        if not is_whole:
            raise StreamError("the stream ended without a finish reason")
        if outcome.ttft_s is None:
            raise StreamError("the stream ended without a token")


def _text(choice: Mapping[str, Any]) -> str | None:
    """A chunk's text; None if it carries no token: in conversations, a role or an end alone."""
    delta = choice.get("delta")
    if delta is None:
        text: str | None = choice.get("text")
        return text
    content: str | None = delta.get("content")
    return None if not content and (delta.get("role") or choice.get("finish_reason")) else content


async def _chunks(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """JSON of a stream's events, up to [DONE]."""
    async for line in answer.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        try:
            chunk = json.loads(data)
        except ValueError as error:
            raise StreamError(f"an event is not JSON: {data[:_ERROR_CHARS]!r}") from error
        if not isinstance(chunk, dict):
            raise StreamError(f"an event is no object: {data[:_ERROR_CHARS]!r}")
        yield chunk


def _problem(status: int, text: str) -> str:
    try:
        found = _message(json.loads(text))
    except ValueError:
        found = text[:_ERROR_CHARS]
    return f"HTTP {status}: {found}"


def _message(answer: Any) -> str:
    error = answer.get("error") if isinstance(answer, dict) else answer
    return str(error.get("message") if isinstance(error, dict) else error)[:_ERROR_CHARS]


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
