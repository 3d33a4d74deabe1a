"""A recorded space: every legal configuration of a kernel on one GPU, with its time or its failure.

What a search is replayed on. The times are somebody's measurements; the file that they came in is
not trusted, and `recorded_files` and `foreign_spaces` refuse what does not make sense.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotune.config import Config, KnobValue
from autotune.errors import CorruptResultError
from autotune.knob import Knob
from autotune.records import Status

MOST_CONFIGS = 500_000
MOST_KNOBS = 64
MOST_VALUES = 4096


@dataclass(frozen=True, slots=True)
class RecordedSpace:
    """One kernel, one problem, one GPU. The three tuples over configurations run in parallel."""

    name: str
    gpu: str
    kernel: str
    problem: Mapping[str, KnobValue]
    """Axes of the problem by name, as far as the recording told them."""
    knobs: tuple[Knob, ...]
    configs: tuple[Config, ...]
    times_us: tuple[float | None, ...]
    """Microseconds, None for a failure."""
    statuses: tuple[Status, ...]
    origin: str = ""
    """Who recorded it, and under which licence."""
    complete: bool = True
    """False where time ran out: then the configurations are a sample of the space."""

    def __post_init__(self) -> None:
        assert len(self.configs) == len(self.times_us) == len(self.statuses)

    @property
    def best_us(self) -> float:
        """Time of the optimum, microseconds."""
        return min(time for time in self.times_us if time is not None)

    @property
    def searched(self) -> tuple[Knob, ...]:
        """Knobs with a choice: constants tell a search nothing."""
        return tuple(knob for knob in self.knobs if len(knob.values) > 1)

    def fractions(self) -> tuple[float, ...]:
        """Optimum divided by the time of each configuration; 0 for a failure."""
        best = self.best_us
        return tuple(0.0 if time is None else best / time for time in self.times_us)


def checked(space: RecordedSpace, source: str) -> RecordedSpace:
    """Return the space if it can be searched.

    Raises:
        CorruptResultError: too large, no choice, a repeated configuration, nothing that worked, or
            a time that is no positive number.
    """

    def refuse(complaint: str) -> CorruptResultError:
        return CorruptResultError(f"{source}: {complaint}")

    if not 1 <= len(space.configs) <= MOST_CONFIGS:
        raise refuse(f"{len(space.configs)} configurations; 1 to {MOST_CONFIGS} can be replayed")
    if len(space.knobs) > MOST_KNOBS:
        raise refuse(f"{len(space.knobs)} knobs; at most {MOST_KNOBS} can be replayed")
    for knob in space.knobs:
        if len(knob.values) > MOST_VALUES:
            raise refuse(f"knob {knob.name} has {len(knob.values)} values, over {MOST_VALUES}")
    if not space.searched:  # no knob at all, too
        raise refuse("no knob has two values, so there is nothing to search")
    if len(set(space.configs)) != len(space.configs):
        raise refuse("the same configuration is recorded twice")
    for config, time, status in zip(space.configs, space.times_us, space.statuses, strict=True):
        if (time is not None) != (status is Status.OK):
            raise refuse(f"{config} has status {status} and time {time}: one of them is wrong")
        if time is not None and not (math.isfinite(time) and time > 0):
            raise refuse(f"{config} took {time} us, which is no time")
    if all(time is None for time in space.times_us):
        raise refuse("every configuration failed, so there is no optimum")
    return space


def knob_from_values(name: str, seen: Sequence[KnobValue]) -> Knob:
    """Knob with the distinct values of a column; ordered unless some are words."""
    values = set(seen)
    ordered = not any(isinstance(value, str) for value in values)
    ranked = sorted(values) if ordered else sorted(values, key=str)
    return Knob(name, tuple(ranked), "", ordered=ordered)
