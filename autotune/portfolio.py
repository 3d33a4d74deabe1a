"""A few binaries that serve all points of a cell: start-up compiles few kernels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

SLACK = 1.02
"""A binary serves a point if it is within this factor of the point's best; predictions are far
less certain than that."""


def choose_portfolio(
    times_us: Mapping[Key, Sequence[float]], slack: float = SLACK
) -> tuple[Key, ...]:
    """Greedy set cover: binaries until every point has one within `slack` of its best.

    Args:
        times_us: each binary's time at every point, in the same order; not empty.
        slack: factor of at least 1.

    Returns:
        The chosen binaries, the most useful first; ties go to the smaller total time, then to the
        one listed first.
    """
    binaries = list(times_us)
    num_points = len(times_us[binaries[0]])
    best = [min(times_us[binary][point] for binary in binaries) for point in range(num_points)]
    serves = {
        binary: {p for p in range(num_points) if times_us[binary][p] <= slack * best[p]}
        for binary in binaries
    }
    uncovered = set(range(num_points))
    chosen: list[Key] = []
    while uncovered:
        most = max(
            binaries, key=lambda binary: (len(serves[binary] & uncovered), -sum(times_us[binary]))
        )
        chosen.append(most)
        uncovered -= serves[most]
    return tuple(chosen)
