"""Interleaved timing of a few candidates on the device of this process, and the statistics of it.

Events around each launch, L2 flushed before and outside of them, candidates taking turns so that
drifts of clock and temperature hit all alike (as nvbench and Helion's final re-timing do).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autotune.records import Timing

if TYPE_CHECKING:
    import torch

_FLUSH_BYTES = 256 << 20
"""More than any L2, MI300X's 256 MB Infinity Cache just covered."""
_WARM_UP_LAUNCHES = 5
_LEAST_ROUNDS, _MOST_ROUNDS = 20, 200
_TARGET_US = 200_000.0
"""Time to spend on one candidate."""
_BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio and its 95 % confidence interval."""

    ratio: float
    low: float
    high: float


def race(launches: Sequence[Callable[[], object]], device: str) -> list[list[float]]:
    """Time all launches in turns; returns one list of samples each, microseconds.

    The number of rounds follows from a first estimate, so that slow candidates do not take minutes
    nor fast ones too few samples.
    """
    import torch

    flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device=device)
    for launch in launches:
        for _ in range(_WARM_UP_LAUNCHES):
            launch()
    slowest_us = max(_once(launch, flush) for launch in launches)
    rounds = int(min(_MOST_ROUNDS, max(_LEAST_ROUNDS, _TARGET_US / slowest_us)))
    samples: list[list[float]] = [[] for _ in launches]
    for number in range(rounds):
        for turn in range(len(launches)):
            which = (turn + number) % len(launches)
            samples[which].append(_once(launches[which], flush))
    return samples


def _once(launch: Callable[[], object], flush: torch.Tensor) -> float:
    import torch

    flush.zero_()
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    launch()
    stop.record()
    stop.synchronize()
    return 1000.0 * float(start.elapsed_time(stop))


def timing(samples: Sequence[float]) -> Timing:
    """Median and quartiles of some samples."""
    q1, median, q3 = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(median_us=median, q1_us=q1, q3_us=q3, samples=len(samples))


def speedup(baseline: Sequence[float], candidate: Sequence[float], seed: int = 0) -> Interval:
    """Median of baseline over candidate, paired by round, with a bootstrap interval.

    Raises:
        ValueError: the samples are not paired.
    """
    if len(baseline) != len(candidate):
        raise ValueError(f"{len(baseline)} and {len(candidate)} samples: not taken in turns")
    ratios = np.asarray(baseline) / np.asarray(candidate)
    rng = np.random.default_rng(seed)
    drawn = rng.choice(ratios, size=(_BOOTSTRAP_DRAWS, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return Interval(float(np.median(ratios)), float(low), float(high))
