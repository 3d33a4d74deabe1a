"""Pinning: the candidate's results take the facts that its own templates compile to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.build import Builder
from autotune.cell import Cell
from autotune.gate.fact_change import FactChange, compare_reports
from autotune.gate.static import pinned_binaries
from autotune.kernels.spec import KernelSpec
from autotune.records import Evaluation, Selection, Status
from autotune.results import CellResult, ResultsStore
from autotune.select import predict_again


@dataclass(frozen=True, slots=True)
class Repinned:
    """A cell whose pins were written anew."""

    where: str
    path: Path
    changes: tuple[FactChange, ...]
    refused: tuple[str, ...]
    """Configurations that no longer compile to something sound: their old pins stay."""


def pin(store: ResultsStore, spec: KernelSpec[Any], builder: Builder) -> list[Repinned]:
    """Compile the selections of a kernel and write the facts that moved.

    Configurations stay. Predicted times follow from the new facts; a measured time was that of
    other code, so it gives way to a prediction, and the reason says so.

    Raises:
        CorruptResultError: the results file cannot be trusted.
        StorageError: it cannot be written; the old one is intact.
    """
    done: list[Repinned] = []
    cells: list[CellResult] = []
    path = store.path(builder.arch.name, spec.name)
    for result in store.read(builder.arch.name, spec.name):
        cell = Cell(spec, builder.arch, spec.problem_type.from_axes(result.exact))
        binaries = pinned_binaries(result)
        configs = [binary.selection.config for binary in binaries]
        found = builder.evaluate(spec, cell.problem, configs)
        changes = [
            change
            for binary, evaluation in zip(binaries, found, strict=True)
            for change in compare_reports(
                binary.selection.reports, evaluation.reports, builder.arch
            )
        ]
        same_tools = (result.environment.triton, result.environment.assembler) == (
            builder.environment.triton,
            builder.environment.assembler,
        )
        if not changes and same_tools:
            continue
        refused = [f"{e.config}: {e.reason}" for e in found if e.status is not Status.OK]
        done.append(Repinned(cell.problem.label("exact"), path, tuple(changes), tuple(refused)))
        if not refused:
            cells.append(_pinned(cell, result, found, builder))
    if cells:
        store.merge(builder.arch.name, spec.name, cells)
    return done


def _pinned(
    cell: Cell, result: CellResult, found: Sequence[Evaluation], builder: Builder
) -> CellResult:
    by_binary = {cell.space.binary_of(evaluation.config): evaluation for evaluation in found}
    points = [cell.problem.at(**selection.nearest) for selection in result.selections]
    wanted = (cell.space.binary_of(cell.spec.default_config(p, cell.arch)) for p in points)
    missing = {binary: cell.representative(binary) for binary in wanted if binary not in by_binary}
    defaults = builder.evaluate(cell.spec, cell.problem, list(missing.values()))
    by_binary |= dict(zip(missing, defaults, strict=True))

    def renewed(selection: Selection) -> Selection:
        if not selection.reports:
            return selection
        evaluation = by_binary[cell.space.binary_of(selection.config)]
        if evaluation.reports == selection.reports:
            return selection
        return predict_again(cell, selection, by_binary)

    return dataclasses.replace(
        result,
        template_sha=builder.templates.sha(cell.spec.template),
        environment=dataclasses.replace(
            result.environment,
            triton=builder.environment.triton,
            assembler=builder.environment.assembler,
        ),
        selections=tuple(renewed(selection) for selection in result.selections),
    )
