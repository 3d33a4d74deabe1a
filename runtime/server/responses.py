"""The answers, as they are sent and as /openapi.json shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

FinishReason = Literal["stop", "length", "abort"]


def finish_reason(found: str | None) -> FinishReason | None:
    """The engine's word, which is also the API's."""
    match found:
        case None | "stop" | "length" | "abort":
            return found
        case _:
            raise ValueError(f"finish reason {found!r} is not one of the API's")


class ApiAnswer(BaseModel):
    """Base of answers; fields that are not set are not sent."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def encode(self) -> bytes:
        """JSON text."""
        return self.model_dump_json(exclude_unset=True).encode()


class PromptTokensDetails(ApiAnswer):
    """Where prompt tokens came from."""

    cached_tokens: int


class Usage(ApiAnswer):
    """Tokens in and out."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class CompletionLogprobs(ApiAnswer):
    """Scores of a completion's tokens, in the older API's shape."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class ScoredToken(ApiAnswer):
    """A token and its natural log-probability."""

    logprob: float
    rank: int
    decoded_token: str


PromptLogprobs = list[dict[str, ScoredToken] | None]
"""One per prompt token, by token id; None for the first."""


class CompletionChoice(ApiAnswer):
    """One completion, or what is new of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None
    stop_reason: int | str | None
    prompt_logprobs: PromptLogprobs | None = None


class CompletionAnswer(ApiAnswer):
    """Of POST /v1/completions; a stream's chunks have the same shape."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class TopLogprob(ApiAnswer):
    """A likely token at a position."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """The token at a position."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(ApiAnswer):
    """Scores of a message's tokens."""

    content: list[TokenLogprob]


class ChatMessage(ApiAnswer):
    """The assistant's answer."""

    role: Literal["assistant"]
    content: str


class ChatChoice(ApiAnswer):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    stop_reason: int | str | None


class ChatAnswer(ApiAnswer):
    """Of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_logprobs: PromptLogprobs | None = None


class ChatDelta(ApiAnswer):
    """What is new of an answer."""

    role: Literal["assistant"] = "assistant"
    content: str = ""


class ChatChunkChoice(ApiAnswer):
    """What is new of one choice."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None
    stop_reason: int | str | None = None


class ChatChunk(ApiAnswer):
    """One event of a chat's stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class ModelCard(ApiAnswer):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    max_model_len: int


class ModelList(ApiAnswer):
    """Of GET /v1/models."""

    object: Literal["list"]
    data: list[ModelCard]


class TokenizeAnswer(ApiAnswer):
    """Of POST /tokenize."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeAnswer(ApiAnswer):
    """Of POST /detokenize."""

    prompt: str


class VersionAnswer(ApiAnswer):
    """Of GET /version."""

    version: str


class ErrorDetail(ApiAnswer):
    """What went wrong, and which field is at fault."""

    message: str
    type: str
    param: str | None
    code: int


class ErrorAnswer(ApiAnswer):
    """Every answer of status 400 and above."""

    error: ErrorDetail
