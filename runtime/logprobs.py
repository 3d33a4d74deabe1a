"""Log-probabilities of tokens at one position, as numbers and as callers see them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """The token at a position, then the most likely ones there; natural logarithms."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ranks: tuple[int, ...]
    """1 is the most likely token of the vocabulary."""


@dataclass(frozen=True, slots=True)
class Logprob:
    """One token's log-probability, by the names of vLLM's `Logprob`."""

    logprob: float
    rank: int
    decoded_token: str | None
