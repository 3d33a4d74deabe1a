"""What callers get back, by the names of vLLM's outputs."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.logprobs import Logprob

TokenLogprobs = dict[int, Logprob]


@dataclass(frozen=True, slots=True)
class CompletionOutput:
    """One sequence of a request, so far."""

    index: int
    text: str
    """Empty without a tokenizer. While running, what may be the start of a stop string is left
    out."""
    token_ids: tuple[int, ...]
    cumulative_logprob: float | None
    """Sum over the tokens, or a beam's score; None where log-probabilities were not asked for."""
    logprobs: list[TokenLogprobs] | None
    finish_reason: str | None
    """"stop", "length" or "abort"; None while running."""
    stop_reason: int | str | None
    """The stop token or string that ended it; None for an end-of-sequence token."""


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """A request, so far."""

    request_id: str
    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    prompt_logprobs: list[TokenLogprobs | None] | None
    """One per prompt token, None for the first; filled while the prompt is computed."""
    outputs: list[CompletionOutput]
    """By index; beams best first."""
    finished: bool
    num_cached_tokens: int
    """Prompt tokens found in the prefix cache."""
    error: str | None = None
    """What ended the request, where its own work failed; `outputs` is empty then."""
