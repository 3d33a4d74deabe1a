"""Which selections of a cell the static gate compiles."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from autotune.gate.static import pinned_binaries
from autotune.results import CellResult, ResultsStore

RESULTS = Path(__file__).parents[2] / "results"


def _cell_with_a_shared_binary() -> CellResult:
    for cell in ResultsStore(RESULTS).read("a100", "paged_attention_decode"):
        if any(binary.points > 1 for binary in pinned_binaries(cell)):
            return cell
    raise AssertionError("no binary of the committed results serves two points")


def test_each_binary_is_compared_once() -> None:
    cell = _cell_with_a_shared_binary()
    codes = [tuple(r.binary_sha for r in b.selection.reports) for b in pinned_binaries(cell)]
    assert len(codes) == len(set(codes)) < len(cell.selections)
    compiled = [selection for selection in cell.selections if selection.reports]
    assert sum(binary.points for binary in pinned_binaries(cell)) == len(compiled)


def test_a_fact_edited_at_one_point_alone_is_not_overlooked() -> None:
    cell = _cell_with_a_shared_binary()
    before = pinned_binaries(cell)
    shared = next(binary for binary in before if binary.points > 1)
    *kept, last = [s for s in cell.selections if s.reports == shared.selection.reports]
    assert kept
    report, *rest = last.reports
    edited = dataclasses.replace(
        last, reports=(dataclasses.replace(report, registers=report.registers - 1), *rest)
    )
    selections = tuple(edited if s is last else s for s in cell.selections)
    after = pinned_binaries(dataclasses.replace(cell, selections=selections))
    assert len(after) == len(before) + 1
    assert edited in [binary.selection for binary in after]
