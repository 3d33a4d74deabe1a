"""Races: a few candidates timed in turns, and the statistics of it.

Candidates take turns, each round starting with another one, so that drifts of clock and
temperature hit all alike (as in nvbench and Helion's final re-timing). Between rounds the GPU's
clocks are read: a round during which heat or a power brake held it back is thrown away, and kept
beside the others. How one sample is taken is a stopwatch's business (`stopwatch`, `simulated`).
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from autotune.clocks import ClockReading, Clocks
from autotune.policy import Mode, Policy
from autotune.records import Conditions, Timing

_BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio and its 95 % confidence interval."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Race:
    """All that was seen. Lists over entrants run in parallel, those over rounds, too."""

    mode: Mode
    samples_us: tuple[tuple[float, ...], ...]
    """Microseconds [entrants][rounds]; no rounds for an entrant with a fault."""
    faults: tuple[str | None, ...]
    """Why an entrant was not timed."""
    discarded_us: tuple[tuple[float, ...], ...]
    """Microseconds [rounds][entrants without a fault] of rounds that were thrown away."""
    clocks: tuple[ClockReading | None, ...]
    """After each round, discarded ones included, in the order of time."""
    stopped: str
    """Why no further round: "spread", "settled", "rounds", "time", "failed"."""

    @classmethod
    def failed(cls, entrants: int, why: str) -> Self:
        """A race that gave nothing."""
        return cls(Mode.EAGER, ((),) * entrants, (why,) * entrants, (), (), "failed")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(
            Mode(data["mode"]),
            tuple(map(tuple, data["samples_us"])),
            tuple(data["faults"]),
            tuple(map(tuple, data["discarded_us"])),
            tuple(r if r is None else ClockReading.from_json(r) for r in data["clocks"]),
            data["stopped"],
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self) | {"mode": self.mode.value}

    def with_faults(self, faults: Sequence[str | None]) -> Self:
        """The race of those that took part, amid those that have a fault and did not."""
        rows = iter(self.samples_us)
        samples = tuple(() if fault is not None else next(rows) for fault in faults)
        return dataclasses.replace(self, samples_us=samples, faults=tuple(faults))

    def timing(self, entrant: int, confirmed_us: float | None = None) -> Timing:
        """Median and quartiles of an entrant that was timed, and under which conditions."""
        readings = [reading for reading in self.clocks if reading is not None]
        speeds = [reading.sm_mhz for reading in readings if reading.sm_mhz is not None]
        conditions = Conditions(
            mode=self.mode.value,
            sm_mhz=round(statistics.median(speeds)) if speeds else None,
            power_capped=(
                round(sum(r.power_capped for r in readings) / len(readings), 3)
                if readings
                else None
            ),
            discarded=len(self.discarded_us),
            confirmed_us=confirmed_us,
        )
        return dataclasses.replace(timing(self.samples_us[entrant]), conditions=conditions)


def race(stopwatches: Sequence[Callable[[], float]], clocks: Clocks, policy: Policy) -> Race:
    """Time all in turns until their medians are settled or the time is up.

    Args:
        stopwatches: each takes one sample and returns microseconds; ready to go.
        clocks: of the device that they run on.
        policy: when to stop.
    """
    kept: list[list[float]] = []  # [rounds][entrants]
    discarded: list[tuple[float, ...]] = []
    readings: list[ClockReading | None] = []
    end = time.monotonic() + policy.cap_s
    count, stopped = len(stopwatches), "rounds"
    while len(kept) < policy.most_rounds:
        first = len(readings) % count
        taken = [0.0] * count
        for turn in range(count):
            which = (first + turn) % count
            taken[which] = stopwatches[which]()
        reading = clocks.read()
        readings.append(reading)
        spoiled = reading is not None and reading.spoiled
        if spoiled and len(discarded) < policy.most_discards:
            time.sleep(min(1.0, policy.pause_s * 2 ** len(discarded)))
            discarded.append(tuple(taken))
        else:
            kept.append(taken)
            if len(kept) >= policy.least_rounds and (reason := _settled(kept, policy)):
                stopped = reason
                break
        if time.monotonic() > end and len(kept) >= min(3, policy.least_rounds):
            stopped = "time"
            break
    columns = tuple(zip(*kept, strict=True))
    return Race(policy.mode, columns, (None,) * count, tuple(discarded), tuple(readings), stopped)


def _settled(kept: Sequence[Sequence[float]], policy: Policy) -> str | None:
    """Why more rounds would tell no more; None while they may. After nvbench's stopping rule."""
    rows = np.asarray(kept)
    spread = _spread(rows)
    if bool((spread < policy.spread).all()):
        return "spread"
    if len(kept) < 2 * policy.least_rounds:
        return None
    before = _spread(rows[: len(kept) // 2])
    return "settled" if bool((abs(spread - before) <= policy.settled * spread).all()) else None


def _spread(rows: np.typing.NDArray[np.float64]) -> np.typing.NDArray[np.float64]:
    """Relative deviation of each column, from its quartiles, so that an outlier counts little."""
    q1, median, q3 = np.quantile(rows, (0.25, 0.5, 0.75), axis=0)
    spread: np.typing.NDArray[np.float64] = (q3 - q1) / 1.349 / median
    return spread


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
