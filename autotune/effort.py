"""How hard to search, by name. Light: the command line reads it before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """What an effort spends on a cell."""

    trials: int | None
    """Binaries compiled; None for all of them."""
    finalists: int
    """Configurations timed per point besides the default; 0 measures nothing."""


EFFORTS = {
    "predict": Effort(trials=24, finalists=0),
    "quick": Effort(trials=32, finalists=8),
    "full": Effort(trials=200, finalists=16),
    "exhaustive": Effort(trials=None, finalists=32),
}

SAMPLERS = ("forest", "classifier", "random", "tpe", "gp", "nsga2")
"""Names that `search.samplers` knows."""
DEFAULT_SAMPLER = "classifier"
