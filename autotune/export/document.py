"""What an exporter returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from autotune.arch import GpuArch
from autotune.results import CellResult


@dataclass(frozen=True, slots=True)
class Document:
    """Files to write, and what their format has no words for."""

    files: Mapping[str, Any]
    """Name → JSON content."""
    left_out: tuple[str, ...] = ()
    """One line per selection that was not exported, with the reason."""


class Exporter(Protocol):
    """Turns the selections of a kernel on a GPU into files of one format."""

    def __call__(self, arch: GpuArch, kernel: str, cells: Sequence[CellResult]) -> Document:
        """Convert; pure, writes nothing."""
        ...
