"""Kernels by size: few configurations, each for a range, found by bisection."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotune.registry import Config, Resolved, Tier
from runtime.kernel_row import TORCH, KernelRow

Launch = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class KernelTable:
    """Configurations of one kernel. Entry i serves sizes up to `bounds[i]`, the last all above."""

    operation: str
    unit: str
    """What sizes count."""
    bounds: tuple[int, ...]
    entries: tuple[Resolved, ...]

    def __post_init__(self) -> None:
        assert len(self.bounds) == len(self.entries) - 1, "the last entry has no bound"
        assert list(self.bounds) == sorted(set(self.bounds))

    def entry(self, size: int) -> Resolved:
        """Return what serves a size."""
        return self.entries[bisect_left(self.bounds, size)]

    def rows(self) -> tuple[KernelRow, ...]:
        """Describe every entry."""
        lows = (1, *(bound + 1 for bound in self.bounds))
        highs = (*map(str, self.bounds), "")
        found = []
        for low, high, entry in zip(lows, highs, self.entries, strict=True):
            chosen = entry.selection
            sizes = "all" if len(self.entries) == 1 else _span(low, high, self.unit)
            found.append(
                KernelRow(
                    operation=self.operation,
                    sizes=sizes,
                    kernel=entry.kernel if entry.library is None else TORCH,
                    problem=entry.problem.label("exact"),
                    tier=entry.tier.value,
                    config=dict(entry.config) if entry.library is None else None,
                    library=entry.library,
                    source=entry.source,
                    provenance=None if chosen is None else chosen.provenance.value,
                    time_us=None if chosen is None else chosen.time_us,
                    gain=None if chosen is None else chosen.gain,
                )
            )
        return tuple(found)


@dataclass(frozen=True, slots=True)
class LaunchTable:
    """A `KernelTable` whose kernels are imported: what the hot path bisects."""

    bounds: tuple[int, ...]
    launches: tuple[Launch, ...]
    distinct: tuple[Launch, ...] = field(init=False)
    """Each kernel once."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "distinct", tuple(dict.fromkeys(self.launches)))

    def at(self, size: int) -> Launch:
        """Return the host function for a size."""
        return self.launches[bisect_left(self.bounds, size)]


def tabulate(
    operation: str, unit: str, sizes: Sequence[int], resolve: Callable[[int], Resolved]
) -> KernelTable:
    """Resolve a kernel at ascending sizes, and join neighbours with equal configurations.

    A routine of the library that serves some sizes is an entry like any other.

    Each size stands for those between the one before it and itself. Of entries that are joined, the
    one whose tier is weakest is kept, so that a table promises no more than holds for all sizes.
    """
    assert sizes
    bounds: list[int] = []
    entries: list[Resolved] = []
    for size in sizes:
        entry = resolve(size)
        if entries and _chosen(entries[-1]) == _chosen(entry):
            entries[-1] = max(entries[-1], entry, key=lambda one: list(Tier).index(one.tier))
            bounds[-1] = size
        else:
            entries.append(entry)
            bounds.append(size)
    return KernelTable(operation, unit, tuple(bounds[:-1]), tuple(entries))


def _chosen(entry: Resolved) -> Config | str:
    return entry.config if entry.library is None else entry.library


def powers_of_two(most: int, *, least: int = 1) -> tuple[int, ...]:
    """Powers of two from `least` to the first that reaches `most`."""
    sizes = [least]
    while sizes[-1] < most:
        sizes.append(2 * sizes[-1])
    return tuple(sizes)


def _span(low: int, high: str, unit: str) -> str:
    if not high:
        return f"{low}+ {unit}"
    return f"{low} {unit}" if str(low) == high else f"{low}-{high} {unit}"
