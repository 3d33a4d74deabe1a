"""The ways in which the same work is cut and disturbed; none of them may change a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.preemption import PreemptionMode

_HOST_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Scenario:
    """Engine options, and how the prompts are sent."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    one_by_one: bool = False
    is_warm: bool = False
    """Send the prompts twice, and compare the second time."""
    ends_early: bool = False
    """Stop at the model's end tokens; all others go on after them, which compares more."""
    preemption: PreemptionMode | None = None
    """Give the engine too few blocks for all prompts together."""


def _preempted(mode: PreemptionMode) -> Scenario:
    options = {
        "preemption_mode": mode,
        "swap_bytes": _HOST_BYTES,
        "enable_forecast": False,
        "enable_prefix_caching": False,
    }
    return Scenario(f"preempted by {mode.value}", options, preemption=mode)


SCENARIOS = (
    Scenario("one by one", {"enable_prefix_caching": False}, one_by_one=True),
    Scenario("all at once"),
    Scenario("to the model's own end", ends_early=True),
    Scenario("all at once, blocks of 16", {"block_size": 16}),
    Scenario("steps ahead of their results", {"async_scheduling": True}),
    Scenario("warm prefix cache", {"block_size": 8}, is_warm=True),
    Scenario("prompts in chunks of 7", {"long_prefill_token_threshold": 7}),
    Scenario("prompts token by token", {"long_prefill_token_threshold": 1}),
    _preempted(PreemptionMode.RECOMPUTE),
    _preempted(PreemptionMode.SWAP),
)
"""In the order of the report."""
