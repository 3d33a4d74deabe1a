"""What a search of several points makes small: one number out of the times at all of them.

It steers which binaries are tried. Selections are made point by point whatever the objective.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Objective = Callable[[Sequence[float], Sequence[float]], float]
"""Of the times at all points and the least possible ones (in the same order), microseconds."""

DEFAULT_OBJECTIVE = "latency"


def _latency(times_us: Sequence[float], floors_us: Sequence[float]) -> float:
    return _geometric_mean(times_us)


def _worst(times_us: Sequence[float], floors_us: Sequence[float]) -> float:
    ratios = (time / floor for time, floor in zip(times_us, floors_us, strict=True))
    return max(ratios) * _geometric_mean(floors_us)


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


OBJECTIVES: Mapping[str, Objective] = {"latency": _latency, "worst": _worst}
"""`latency` is the geometric mean of the times. `worst` is that mean if every point were as many
times slower than its least possible time as the worst one is."""
