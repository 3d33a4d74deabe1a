"""How a kernel is timed. The policy is part of a measurement's meaning and is stored with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

CAPTURED_TOKENS = 512
"""Batches of up to so many single tokens are what serving engines capture as graphs."""


class Mode(StrEnum):
    """What starts the kernel while the clock runs."""

    GRAPH = "graph"
    EAGER = "eager"


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules of one race; times in microseconds where the name says so."""

    mode: Mode = Mode.EAGER
    warm_up_us: float = 25_000.0
    least_rounds: int = 10
    most_rounds: int = 200
    spread: float = 0.005
    """A median whose samples' relative deviation is below this is settled."""
    settled: float = 0.1
    """So is one whose deviation changed by less than this share since half as many samples."""
    cap_s: float = 5.0
    """No round starts after so many seconds."""
    most_discards: int = 20
    """Rounds that may be thrown away before what is left must do."""
    pause_s: float = 0.05
    """First rest after a discarded round; it doubles, up to a second."""
    check_timeout_s: float = 60.0
    race_timeout_s: float = 300.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(**{**data, "mode": Mode(data["mode"])})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**dataclasses.asdict(self), "mode": self.mode.value}

    def quick(self) -> Policy:
        """The same for one of very many configurations: fewer rounds, a tenth of a second."""
        return dataclasses.replace(
            self, warm_up_us=2_000.0, most_rounds=30, cap_s=0.1, spread=2 * self.spread
        )


def mode_for(sizes: Mapping[str, int]) -> Mode:
    """Graph for what an engine replays (one token per sequence, few rows), else eager."""
    single = sizes.get("query_len", 1) == 1
    return Mode.GRAPH if single and sizes.get("m", 1) <= CAPTURED_TOKENS else Mode.EAGER
