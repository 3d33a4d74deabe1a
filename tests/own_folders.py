"""Folders that belong to one test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a test's cache, results and studies lie."""

    cache: Path
    results: Path
    studies: Path

    @classmethod
    def below(cls, folder: Path) -> Folders:
        """Three folders, not made yet."""
        return cls(folder / "cache", folder / "results", folder / "studies")

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that point the commands here."""
        return {
            "AUTOTUNE_CACHE": str(self.cache),
            "AUTOTUNE_RESULTS": str(self.results),
            "AUTOTUNE_STUDIES": str(self.studies),
        }
