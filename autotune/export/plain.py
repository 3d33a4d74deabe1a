"""Plain JSON: one flat list of what was chosen, for scripts."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.arch import GpuArch
from autotune.export.document import Document
from autotune.results import CellResult


def export(arch: GpuArch, kernel: str, cells: Sequence[CellResult]) -> Document:
    """Problem, configuration, provenance and times of every selection."""
    rows = [
        {
            "gpu": arch.name,
            "kernel": kernel,
            "problem": {**selection.exact, **selection.nearest},
            "config": dict(selection.config),
            "library": selection.library,
            "provenance": selection.provenance.value,
            "time_us": selection.time_us,
            "default_us": selection.default_us,
            "floor_us": selection.floor_us,
            "triton": cell.environment.triton,
        }
        for cell in cells
        for selection in cell.selections
    ]
    return Document({f"{arch.name}-{kernel}.json": rows})
