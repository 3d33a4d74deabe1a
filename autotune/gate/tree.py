"""One side of a comparison: a folder with results, with templates, or with both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotune.arch import GPUS
from autotune.errors import UsageError
from autotune.paths import templates_dir
from autotune.results import ResultsStore


@dataclass(frozen=True, slots=True)
class Tree:
    """A checkout (with `results/`, `templates/` or both in it), or a results folder alone."""

    folder: Path
    results: Path | None
    own_templates: Path | None

    @classmethod
    def open(cls, folder: Path) -> Tree:
        """Look what is in a folder.

        Raises:
            UsageError: there is no such folder, or neither results nor templates in it.
        """
        if not folder.exists():
            raise UsageError(f"there is no {folder}; give a checkout or a results folder")
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder; give a checkout or a results folder")
        results, templates = folder / "results", folder / "templates"
        if results.is_dir() or templates.is_dir():
            return cls(
                folder,
                results if results.is_dir() else None,
                templates if templates.is_dir() else None,
            )
        if any((folder / gpu).is_dir() for gpu in GPUS):
            return cls(folder, folder, None)
        raise UsageError(
            f"{folder} has neither results/ nor templates/ in it, nor a folder named after a GPU: "
            "it is no side of a comparison"
        )

    @property
    def templates(self) -> Path:
        """Its own templates, else those that this package ships."""
        return self.own_templates or templates_dir()

    def store(self) -> ResultsStore:
        """Its results."""
        assert self.results is not None, f"{self.folder} has no results"
        return ResultsStore(self.results)
