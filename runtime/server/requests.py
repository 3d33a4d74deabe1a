"""The bodies that the endpoints take, as pydantic checks them and as /openapi.json shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from runtime.server.config import MAX_MESSAGES, MAX_PARTS, MAX_PROMPTS
from runtime.server.sampling_fields import INT32, ApiModel, Count, SamplingFields, TokenId

MAX_LOGPROBS = 20
_MAX_IDS = 4 << 20
"""A body of 8 MiB holds no more."""

TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=_MAX_IDS, fail_fast=True)]
Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
ManyTokenIds = Annotated[
    list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)
]


class CompletionRequest(SamplingFields):
    """Body of POST /v1/completions."""

    prompt: str | TokenIds | Texts | ManyTokenIds
    max_tokens: Annotated[int, Field(ge=0, le=INT32)] | None = Field(
        16, description="0 only with echo."
    )
    echo: bool | None = Field(None, description="Give the prompt back before the output.")
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    prompt_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)


class TextPart(ApiModel):
    """A part of a message; only text is taken, and nothing is ever fetched."""

    type: Literal["text"]
    text: str


Parts = Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)]


class Message(ApiModel):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Parts
    name: str | None = Field(None, max_length=256)
    reasoning_content: str | None = None
    tool_call_id: str | None = Field(None, max_length=256)

    def plain(self) -> dict[str, Any]:
        """As chat templates know messages: the content is one text."""
        found = self.model_dump(exclude_none=True)
        if isinstance(self.content, list):
            found["content"] = "\n".join(part.text for part in self.content)
        return found


Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]


class TextFormat(ApiModel):
    """The only response format there is."""

    type: Literal["text"]


class TemplateArguments(ApiModel):
    """Variables that a model's own chat template may know; more are not taken from requests."""

    enable_thinking: bool | None = None
    thinking: bool | None = None


class ChatRequest(SamplingFields):
    """Body of POST /v1/chat/completions."""

    messages: Messages
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    prompt_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    add_generation_prompt: bool | None = Field(None, description="True if not given.")
    chat_template_kwargs: TemplateArguments | None = None
    response_format: TextFormat | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = Field(
        None, description="Not supported: no or an empty list."
    )
    tool_choice: Literal["none"] | None = None
    parallel_tool_calls: bool | None = Field(None, description="Taken, and not used.")
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None


class TokenizeRequest(ApiModel):
    """Body of POST /tokenize: a prompt, or messages."""

    model: str | None = Field(None, max_length=1024)
    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = Field(
        None, description="True for a prompt, false for messages, if not given."
    )
    add_generation_prompt: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(ApiModel):
    """Body of POST /detokenize."""

    model: str | None = Field(None, max_length=1024)
    tokens: Annotated[list[TokenId], Field(max_length=_MAX_IDS, fail_fast=True)]
