"""Faster, slower or the same? Verdicts on timings, with the noise taken from the same run.

The threshold follows from an A/A comparison inside the run, relevance is kept apart from
significance (as rustc-perf does), and what is neither clearly the same nor clearly different is
called ambiguous (as nvbench's robust comparison does) instead of being guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotune.gate.verdict import Verdict
from autotune.race import Interval, speedup

LEAST_CHANGE = 0.03
"""A relative change below this is never called one."""
_NOISE_FACTOR = 3.0
_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class TimingVerdict:
    """What the samples say."""

    verdict: Verdict
    ratio: Interval
    """Candidate over baseline: above 1 is slower."""
    threshold: float


def judge_paired(
    baseline: Sequence[float],
    candidate: Sequence[float],
    again: Sequence[float],
    least: float = LEAST_CHANGE,
) -> TimingVerdict:
    """Compare samples that were taken in turns: paired by round, so that drifts cancel.

    Args:
        baseline: times of one round each, microseconds.
        candidate: of the same rounds.
        again: of the baseline once more, in the same rounds: what two equal kernels differ by.
        least: relative change that matters.

    Raises:
        ValueError: the samples are not paired.
    """
    noise = speedup(again, baseline)
    spread = max(abs(noise.low - 1.0), abs(noise.high - 1.0))
    return _judge(speedup(candidate, baseline), max(least, _NOISE_FACTOR * spread))


def judge_unpaired(
    baseline: Sequence[float], candidate: Sequence[float], least: float
) -> TimingVerdict:
    """Compare samples of two runs: medians, each resampled on its own.

    Args:
        baseline: times, any unit.
        candidate: times, the same unit.
        least: relative change that matters; must cover what two runs of the same code differ by.
    """
    rng = np.random.default_rng(0)
    medians = [
        np.median(rng.choice(np.asarray(side), size=(_DRAWS, len(side))), axis=1)
        for side in (baseline, candidate)
    ]
    low, high = np.quantile(medians[1] / medians[0], (0.025, 0.975))
    ratio = float(np.median(candidate) / np.median(baseline))
    return _judge(Interval(ratio, float(low), float(high)), least)


def _judge(ratio: Interval, threshold: float) -> TimingVerdict:
    upper, lower = 1.0 + threshold, 1.0 / (1.0 + threshold)
    if ratio.low > upper:
        verdict = Verdict.SLOWER
    elif ratio.high < lower:
        verdict = Verdict.FASTER
    elif ratio.low >= lower and ratio.high <= upper:
        verdict = Verdict.SAME
    else:
        verdict = Verdict.AMBIGUOUS
    return TimingVerdict(verdict, ratio, threshold)
