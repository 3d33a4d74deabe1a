"""How to preempt a sequence: throw its blocks away and recompute, or save them to host memory."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from runtime.errors import InvalidParameterError


class PreemptionMode(Enum):
    """What becomes of the blocks of a preempted sequence."""

    RECOMPUTE = "recompute"
    SWAP = "swap"


@dataclass(frozen=True, slots=True)
class PreemptionCost:
    """Rates measured when the engine starts; they decide between the two modes.

    A swap moves every block out and in again; recomputing runs every token through the model once
    more. Without a measured link the choice is to recompute.
    """

    bytes_per_block: int
    link_bytes_per_s: float | None
    prefill_tokens_per_s: float

    def __post_init__(self) -> None:
        for field in ("bytes_per_block", "link_bytes_per_s", "prefill_tokens_per_s"):
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise InvalidParameterError(field, value, "above 0")

    def swap_s(self, num_blocks: int) -> float | None:
        """Seconds to move `num_blocks` out and in, None if the link was not measured."""
        if self.link_bytes_per_s is None:
            return None
        return 2 * num_blocks * self.bytes_per_block / self.link_bytes_per_s

    def recompute_s(self, num_tokens: int) -> float:
        """Seconds to prefill `num_tokens` again."""
        return num_tokens / self.prefill_tokens_per_s

    def choose(self, num_tokens: int, num_blocks: int) -> PreemptionMode:
        """Return the cheaper mode for a sequence with so many computed tokens and their blocks."""
        swap_s = self.swap_s(num_blocks)
        if swap_s is not None and swap_s < self.recompute_s(num_tokens):
            return PreemptionMode.SWAP
        return PreemptionMode.RECOMPUTE
