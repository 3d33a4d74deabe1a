"""What many replays say together: means with bootstrap intervals, and how soon 95 % is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CHECKPOINTS = (10, 25, 50, 100, 200)
"""Evaluations at which a search is judged, as far as it goes."""
TARGET = 0.95
_RESAMPLES = 2000
_LOW, _HIGH = 2.5, 97.5


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and its 95 % percentile-bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Arrival:
    """When searches reached `TARGET` of the optimum."""

    reached: int
    searches: int
    median_evals: int | None
    """Median over all searches; None when fewer than half arrived."""


def checkpoints(evals: int) -> tuple[int, ...]:
    """The usual points of a search of that length, its end among them."""
    return (*(point for point in CHECKPOINTS if point < evals), evals)


def estimate(values: Array) -> Estimate:
    """Mean of one value per seed. The resampling is seeded: same values, same interval."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, size=(_RESAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(means, [_LOW, _HIGH])
    return Estimate(float(values.mean()), float(low), float(high))


def arrival(best: Array) -> Arrival:
    """Read the arrivals off curves [seeds, evals]."""
    there = best >= TARGET
    arrived = there.any(axis=1)
    evals = sorted(int(row.argmax()) + 1 for row in there[arrived])
    middle = (len(best) - 1) // 2
    median = evals[middle] if middle < len(evals) else None
    return Arrival(len(evals), len(best), median)


def geometric_mean(curves: Sequence[Array], evals: int) -> Estimate:
    """Geometric mean over spaces of the mean fraction after `evals`; seeds resampled per space."""
    rng = np.random.default_rng(0)
    logs = np.zeros(_RESAMPLES)
    for best in curves:
        drawn = rng.choice(best[:, evals - 1], size=(_RESAMPLES, len(best))).mean(axis=1)
        logs += np.log(np.maximum(drawn, 1e-12)) / len(curves)
    low, high = np.percentile(np.exp(logs), [_LOW, _HIGH])
    means = [max(float(best[:, evals - 1].mean()), 1e-12) for best in curves]
    middle = math.exp(sum(map(math.log, means)) / len(means))
    return Estimate(middle, float(low), float(high))
