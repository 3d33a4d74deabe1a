"""The limits and policies that the scheduler works under; frozen, checked on construction."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from runtime.errors import InvalidParameterError
from runtime.preemption import PreemptionCost, PreemptionMode


class SchedulingPolicy(Enum):
    """Who comes first: the earlier request, or the one of smaller priority number."""

    FCFS = "fcfs"
    PRIORITY = "priority"


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Raises InvalidParameterError, naming the field, where the limits contradict each other."""

    block_size: int
    num_blocks: int
    """Device blocks, with block 0, which takes the writes of padding."""
    num_host_blocks: int = 0
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int = 4096
    max_queue_len: int = 4096
    policy: SchedulingPolicy = SchedulingPolicy.FCFS
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int | None = None
    """Most prompt tokens of one sequence in one step, so that a long prompt leaves room."""
    preemption_mode: PreemptionMode | None = None
    """None: the cheaper one by `preemption_cost`, or to recompute without one."""
    preemption_cost: PreemptionCost | None = None
    enable_forecast: bool = True
    """Hold a request back while those that run are expected to need the blocks it would take."""
    expected_output_tokens: int = 128
    """First guess of an output's length, until requests have ended and shown theirs."""
    max_steps_in_flight: int = 2
    """Steps that may be scheduled before the first one's results: 1 is synchronous."""

    def __post_init__(self) -> None:
        at_least_one = (
            "block_size",
            "max_num_seqs",
            "max_num_batched_tokens",
            "max_queue_len",
            "expected_output_tokens",
            "max_steps_in_flight",
        )
        for field in at_least_one:
            self._require(getattr(self, field) >= 1, field, "at least 1")
        self._require(self.num_blocks >= 2, "num_blocks", "at least 2: block 0 is for padding")
        self._require(self.num_host_blocks >= 0, "num_host_blocks", "at least 0")
        self._require(self.max_model_len >= 2, "max_model_len", "at least 2")
        self._require(
            self.max_num_batched_tokens >= self.max_num_seqs,
            "max_num_batched_tokens",
            f"at least max_num_seqs={self.max_num_seqs}, for one token each",
        )
        self._require(
            self.enable_chunked_prefill or self.max_num_batched_tokens >= self.max_model_len,
            "max_num_batched_tokens",
            f"at least max_model_len={self.max_model_len}, as prompts are not cut into chunks",
        )
        self._require(
            self.long_prefill_token_threshold is None
            or (self.enable_chunked_prefill and self.long_prefill_token_threshold >= 1),
            "long_prefill_token_threshold",
            "None, or at least 1 with enable_chunked_prefill",
        )
        self._require(
            self.max_steps_in_flight <= 2,
            "max_steps_in_flight",
            "1, or 2: a step's input tokens are sampled by the step before at the earliest",
        )

    def _require(self, holds: bool, field: str, accepts: str) -> None:
        if not holds:
            raise InvalidParameterError(field, getattr(self, field), accepts)

    @property
    def max_pool_tokens(self) -> int:
        """Tokens that one sequence could hold alone; its last one needs no block."""
        return (self.num_blocks - 1) * self.block_size + 1
