"""Knobs, and the rules that their values obey together; knows no kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from autotune.config import KnobValue


@dataclass(frozen=True, slots=True)
class Knob:
    """One tunable choice. `ordered` values have a geometry (tile sizes); others are mere names."""

    name: str
    values: tuple[KnobValue, ...]
    meaning: str
    ordered: bool = True
    host: bool = False
    """Read by the launch code only (a split count): configurations that differ in nothing else
    share their binary, so it is compiled once."""
    unrepeatable: tuple[KnobValue, ...] = ()
    """Values with which two runs, or one sequence among other neighbours, may differ in the last
    bits."""
    steady: KnobValue | None = None
    """Value that suits all sizes best where one must, for one order of sums. A variant that has one
    is searched where results must repeat."""

    def __post_init__(self) -> None:
        assert self.values, f"knob {self.name} has no values"
        assert len(set(self.values)) == len(self.values), f"knob {self.name} repeats a value"


@dataclass(frozen=True, slots=True)
class Constraint:
    """A rule that legal configurations obey. `holds` gets the values of `knobs`, in that order."""

    reason: str
    knobs: tuple[str, ...]
    holds: Callable[..., bool]


def grid(**axes: tuple[KnobValue, ...]) -> tuple[dict[str, KnobValue], ...]:
    """All combinations of named values, as dictionaries."""
    return tuple(dict(zip(axes, point, strict=True)) for point in product(*axes.values()))


def plain_values(variants: Iterable[Knob], config: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
    """Plain values of the variants that `config` does not name."""
    return {knob.name: knob.values[0] for knob in variants if knob.name not in config}
