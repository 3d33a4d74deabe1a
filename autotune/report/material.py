"""What a report is about: selections, and what follows from them without compiling."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.arch import GpuArch
from autotune.cell import Cell
from autotune.kernels.spec import KernelSpec
from autotune.problem import Problem
from autotune.records import Evaluation, Provenance, Selection, Status
from autotune.results import CellResult


@dataclass(frozen=True, slots=True)
class Row:
    """One selection, at its point."""

    kernel: str
    point: Problem
    selection: Selection
    flops: float
    least_bytes: float
    """Bytes that must move between device memory and the chip."""
    predicted_us: float | None
    """The model's time for the same configuration; None for an untested default."""

    @property
    def of_floor(self) -> float | None:
        """Least possible time over time: 1 is as fast as the hardware allows."""
        if self.selection.time_us is None:
            return None
        return self.selection.floor_us / self.selection.time_us

    @property
    def is_measured(self) -> bool:
        """Whether the time was measured."""
        return self.selection.provenance is Provenance.MEASURED


@dataclass(frozen=True, slots=True)
class KernelMaterial:
    """All selections of one kernel on one GPU, and how the search for them went."""

    kernel: str
    rows: tuple[Row, ...]
    outcomes: Mapping[str, int]
    """Candidates by how they ended."""
    spaces: tuple[Mapping[str, int], ...]
    """Cartesian, legal and binaries of each cell."""

    @property
    def gains(self) -> list[float]:
        """Default time over time, of the points that have both."""
        return [row.selection.gain for row in self.rows if row.selection.gain is not None]

    @property
    def mean_gain(self) -> float | None:
        """Geometric mean of the gains."""
        return geometric_mean(self.gains)


def gather(spec: KernelSpec[Any], arch: GpuArch, cells: Sequence[CellResult]) -> KernelMaterial:
    """Collect a kernel's selections; nothing is compiled, the stored facts suffice."""
    rows: list[Row] = []
    outcomes: Counter[str] = Counter()
    for result in cells:
        cell = Cell(spec, arch, spec.problem_type.from_axes(result.exact))
        outcomes.update(result.search.get("outcomes", {}))
        for selection in result.selections:
            point = cell.problem.at(**selection.nearest)
            predicted = None
            if selection.reports:
                evaluation = Evaluation(selection.config, Status.OK, reports=selection.reports)
                choice = cell.predict(point, selection.config, evaluation)
                predicted = choice.prediction.time_us
            rows.append(
                Row(
                    kernel=spec.name,
                    point=point,
                    selection=selection,
                    flops=spec.flops(point),
                    least_bytes=spec.min_bytes(point),
                    predicted_us=predicted,
                )
            )
    spaces = tuple(result.search["space"] for result in cells if "space" in result.search)
    return KernelMaterial(spec.name, tuple(rows), dict(outcomes), spaces)


def geometric_mean(values: Sequence[float]) -> float | None:
    """Of positive numbers; None of nothing."""
    if not values:
        return None
    return math.exp(sum(map(math.log, values)) / len(values))
