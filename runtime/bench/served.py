"""What a contender did in a run."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.bench.workload import Workload


@dataclass(frozen=True, slots=True)
class Served:
    """Tokens and time; of the whole workload, or of what was done when time was up."""

    seconds: float
    num_output_tokens: int
    num_prompt_tokens: int | None
    """None where nobody knows, as time was up."""

    @classmethod
    def all_of(cls, workload: Workload, seconds: float) -> Served:
        """To the end."""
        return cls(seconds, workload.num_output_tokens, workload.num_prompt_tokens)
