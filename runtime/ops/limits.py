"""The largest steps of an engine, and the sizes that its kernels are chosen at."""

from __future__ import annotations

import math
from dataclasses import dataclass

from runtime.scheduler_config import SchedulerConfig


@dataclass(frozen=True, slots=True)
class StepLimits:
    """The largest steps that kernels are chosen for."""

    max_num_seqs: int
    max_num_tokens: int
    max_model_len: int
    pool_tokens: int
    """Tokens that the KV cache holds."""

    @classmethod
    def of(cls, limits: SchedulerConfig) -> StepLimits:
        """Read them off the scheduler's."""
        return cls(
            max_num_seqs=limits.max_num_seqs,
            max_num_tokens=limits.max_num_batched_tokens,
            max_model_len=limits.max_model_len,
            pool_tokens=(limits.num_blocks - 1) * limits.block_size,
        )

    def typical_context(self, num_seqs: int, shortest: int) -> int:
        """Context length to choose a kernel at, where only the number of sequences is known.

        The geometric middle between `shortest` and what so many sequences can have at once: the
        length from which no other is more doublings away than it must be.
        """
        longest = max(1, min(self.max_model_len, self.pool_tokens // num_seqs))
        return math.isqrt(min(shortest, longest) * longest)
