"""How hard to search, by name. Light: the command line reads it before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_SAMPLER = "blend"
"""Of searches whose finalists are measured, and of replays."""
PREDICTING_SAMPLER = "classifier"
"""Of searches that measure nothing: committed predictions were made with it, and another sampler
would change them all without making them any truer."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What an effort spends on a cell."""

    trials: int | None
    """Binaries compiled; None for all of them."""
    finalists: int
    """Configurations timed per point besides the default; 0 measures nothing."""
    sampler: str = DEFAULT_SAMPLER
    """What picks the binaries, unless the caller names another."""


EFFORTS = {
    "predict": Effort(trials=24, finalists=0, sampler=PREDICTING_SAMPLER),
    "quick": Effort(trials=32, finalists=8),
    "full": Effort(trials=200, finalists=16),
    "exhaustive": Effort(trials=None, finalists=32, sampler=PREDICTING_SAMPLER),
}

SAMPLERS = ("blend", "forest", "classifier", "random", "tpe", "gp", "nsga2")
"""Names that `search.samplers` knows."""
