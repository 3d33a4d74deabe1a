"""From what a client sends to the token ids of each prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.errors import ChatRefusedError
from runtime.server.api_error import bad_request
from runtime.server.frontend import Frontend
from runtime.server.requests import Message, TemplateArguments

_INLINE_CHARS = 4096
"""Shorter texts take less time to encode than a thread takes to wake up."""
_CHARS_PER_TOKEN = 128
"""No tokenizer fits more into its average token: longer texts are refused unread."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt, and its text where it came as text."""

    token_ids: list[int]
    text: str | None


async def encode_text(front: Frontend, text: str, field: str, *, special: bool) -> Prompt:
    """Tokens of one text.

    Raises:
        ApiError: 400, it cannot fit, or there is no tokenizer.
    """
    max_len = front.facts.max_model_len
    if len(text) > max_len * _CHARS_PER_TOKEN:
        raise bad_request(
            field, f"{field}: {len(text)} characters cannot fit in the context of {max_len} tokens"
        )
    tokenizer = front.tokenizer

    def work() -> list[int]:
        return tokenizer.encode(text, add_special_tokens=special)

    ids = work() if len(text) <= _INLINE_CHARS else await front.in_thread(work)
    return Prompt(ids, text)


async def render_chat(
    front: Frontend,
    messages: Sequence[Message],
    arguments: TemplateArguments | None = None,
    *,
    add_generation_prompt: bool = True,
) -> str:
    """The prompt that the model's own template makes of a conversation.

    Raises:
        ApiError: 400, the template refuses it, or there is none.
    """
    template = front.template
    variables = {} if arguments is None else arguments.model_dump(exclude_none=True)

    def work() -> str:
        return template.render(
            [message.plain() for message in messages], add_generation_prompt, **variables
        )

    try:
        return await front.in_thread(work)
    except ChatRefusedError as error:
        raise bad_request("messages", f"messages: {error}") from error


async def completion_prompts(
    front: Frontend, given: str | list[int] | list[str] | list[list[int]], *, special: bool
) -> list[Prompt]:
    """Every prompt of a completion request.

    Raises:
        ApiError: 400, one cannot be taken.
    """
    if isinstance(given, str):
        return [await encode_text(front, given, "prompt", special=special)]
    prompts: list[Prompt] = []
    alone: list[int] = []
    for item in given:
        if isinstance(item, int):
            alone.append(item)
        elif isinstance(item, str):
            prompts.append(await encode_text(front, item, "prompt", special=special))
        else:
            prompts.append(Prompt(item, None))
    return [Prompt(alone, None)] if alone else prompts


def check_prompts(front: Frontend, prompts: Sequence[Prompt], field: str) -> None:
    """Raise ApiError 400 for a prompt that the engine could never serve."""
    facts = front.facts
    for prompt in prompts:
        num_tokens = len(prompt.token_ids)
        if not num_tokens:
            raise bad_request(field, f"{field}: an empty prompt has no token to continue from")
        if num_tokens >= facts.max_model_len:
            raise bad_request(
                field,
                f"{field}: {num_tokens} tokens leave no room for an output token in the context of "
                f"{facts.max_model_len}",
            )
        if max(prompt.token_ids) >= facts.vocab_size:
            raise bad_request(
                field, f"{field}: token ids must be below the vocabulary's size, {facts.vocab_size}"
            )


def output_bound(front: Frontend, prompts: Sequence[Prompt], wanted: int, field: str) -> None:
    """Raise ApiError 400 where `wanted` output tokens do not fit behind a prompt."""
    longest = max(len(prompt.token_ids) for prompt in prompts)
    room = front.facts.max_model_len - longest
    if wanted > room:
        raise bad_request(
            field,
            f"{field}: {wanted} is more than the {room} tokens that the context of "
            f"{front.facts.max_model_len} leaves after a prompt of {longest}",
        )
