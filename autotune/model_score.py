"""How far the cost model's order of a recorded space is right, and what a pick by it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from autotune.tiles import Array

PICKS = (1, 4, 8)
_RECALLED = 8


@dataclass(frozen=True, slots=True)
class ModelScore:
    """One prediction of one space against what was measured."""

    candidates: int
    spearman: float
    """Rank correlation of predicted and measured times, of what ran."""
    fractions: dict[int, float | None]
    """Optimum over the best time among the model's first so many; None if none of them ran."""
    recall: float
    """Share of the eight fastest among the model's first eight."""
    typical: float
    """Optimum over the median time: what a blind pick reaches half of the time."""

    def regret(self, picks: int) -> float | None:
        """How much slower than the optimum the best of so many picks is, less one."""
        fraction = self.fractions[picks]
        return None if fraction is None else 1 / fraction - 1


def score(times_us: Array, predicted_us: Array) -> ModelScore:
    """Compare measured times [candidates], NaN for failures, with predicted ones."""
    ran = np.isfinite(times_us)
    best = float(times_us[ran].min())
    order = np.argsort(predicted_us, kind="stable")
    fractions: dict[int, float | None] = {}
    for picks in PICKS:
        found = times_us[order[:picks]]
        found = found[np.isfinite(found)]
        fractions[picks] = best / float(found.min()) if len(found) else None
    fastest = np.argsort(np.where(ran, times_us, np.inf), kind="stable")
    fastest = fastest[: min(_RECALLED, int(ran.sum()))]
    varied = len(set(times_us[ran])) > 1 and len(set(predicted_us[ran])) > 1
    return ModelScore(
        candidates=len(times_us),
        spearman=float(spearmanr(times_us[ran], predicted_us[ran])[0]) if varied else 0.0,
        fractions=fractions,
        recall=len(set(fastest) & set(order[:_RECALLED])) / len(fastest),
        typical=best / float(np.median(times_us[ran])),
    )


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """Over several spaces: means, geometric ones of fractions, of picks that ran."""

    spaces: int
    spearman: float
    recall: float
    fractions: dict[int, float | None]
    without: dict[int, int]
    """Spaces at which none of so many picks ran, which are in no mean."""
    typical: float


def summarise(scores: Sequence[ModelScore]) -> ModelSummary:
    """Join scores of the same model."""
    return ModelSummary(
        spaces=len(scores),
        spearman=float(np.mean([one.spearman for one in scores])),
        recall=float(np.mean([one.recall for one in scores])),
        fractions={k: _geometric([one.fractions[k] for one in scores]) for k in PICKS},
        without={k: sum(one.fractions[k] is None for one in scores) for k in PICKS},
        typical=_geometric([one.typical for one in scores]) or 0.0,
    )


def _geometric(values: Sequence[float | None]) -> float | None:
    known = [math.log(value) for value in values if value is not None]
    return math.exp(sum(known) / len(known)) if known else None
