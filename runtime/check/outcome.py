"""What a check found, as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """Kind of comparison."""

    EXACT = "exact ids"
    FORCED = "forced decode"
    FREE = "free running"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first position at which a request went wrong."""

    prompt_index: int
    position: int
    """Among the output tokens, from 0."""
    token_id: int | None
    """The engine's; None if it ended before."""
    logprob: float | None
    """Of the engine's token, by the engine."""
    expected_token_id: int | None
    """Hugging Face's; None if it ended before."""
    expected_logprob: float | None
    """Of Hugging Face's token, by Hugging Face."""

    def __str__(self) -> str:
        ours = _side(self.token_id, self.logprob)
        theirs = _side(self.expected_token_id, self.expected_logprob)
        return (
            f"prompt {self.prompt_index}, output token {self.position}: engine {ours}, "
            f"Hugging Face {theirs}"
        )


def _side(token_id: int | None, logprob: float | None) -> str:
    if token_id is None:
        return "has ended"
    return f"{token_id}" if logprob is None else f"{token_id} (log-probability {logprob:.6f})"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row of the report."""

    tier: Tier
    scenario: str
    num_tokens: int
    """Tokens compared."""
    note: str
    mismatch: Mismatch | None = None
    problem: str | None = None
    """What is wrong where no single position is."""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return self.mismatch is None and self.problem is None
