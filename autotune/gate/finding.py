"""One line of a gate's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autotune.gate.fact_change import FactChange
from autotune.gate.verdict import Verdict
from autotune.race import Interval


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one kernel of a cell, or of one benchmark."""

    verdict: Verdict
    gpu: str
    kernel: str
    """Name of the kernel or benchmark."""
    where: str
    """Exact axes and configuration, or the sizes of a point."""
    detail: str = ""
    """One line for people."""
    changes: tuple[FactChange, ...] = ()
    ratio: Interval | None = None
    """Candidate time over baseline time with its 95 % interval; None without timing."""
    threshold: float | None = None
    """Relative change that counts, after the noise was looked at."""
    accepted: tuple[str, ...] = ()
    """Facts whose fall the caller accepted."""

    @property
    def fails(self) -> bool:
        """Whether this fails the gate."""
        return self.verdict.fails

    @property
    def name(self) -> str:
        """What a person would call it, on one line."""
        return " ".join(part for part in (self.gpu, self.kernel, self.where) if part)

    def to_json(self) -> dict[str, Any]:
        """Plain types, as the gate's JSON has them."""
        ratio = None
        if self.ratio is not None:
            ratio = [self.ratio.ratio, self.ratio.low, self.ratio.high]
        return {
            "verdict": self.verdict.value,
            "fails": self.fails,
            "gpu": self.gpu,
            "kernel": self.kernel,
            "where": self.where,
            "detail": self.detail,
            "changes": [
                {
                    "entry": change.entry,
                    "fact": change.fact,
                    "before": change.before,
                    "after": change.after,
                    "direction": change.direction.name.lower(),
                }
                for change in self.changes
            ],
            "ratio": ratio,
            "threshold": self.threshold,
            "accepted": list(self.accepted),
        }
