"""Warm starts: what won on other GPUs, or for other models, that is legal here.

Few and unlike each other, for favourites of another GPU can hold a search in a region where only
that GPU is fast; samplers do not learn from them (`search.samplers`). Where finalists are timed
these are timed with them, whatever the cost model says: somebody's clock, or another GPU's model,
preferred them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autotune.arch import GPUS
from autotune.cell import Cell
from autotune.config import Config
from autotune.errors import CorruptResultError
from autotune.records import Provenance
from autotune.results import CellResult, ResultsStore

MOST = 4
"""Per search."""
_LEAST_CHANGES = 2
"""Knobs that a warm start must differ in from those before it."""


@dataclass(frozen=True, slots=True)
class WarmStart:
    """A configuration that was selected for another cell, and is legal in this one."""

    config: Config
    """Host knobs included, as at the point that most selected it."""
    origin: str
    """Whose it was: GPU, provenance, and the exact axes that differ."""


class Elsewhere:
    """Selections of all GPUs in some results folders; each file is read once."""

    def __init__(self, stores: Sequence[ResultsStore], searched: Sequence[Cell] = ()) -> None:
        """Leave out the cells of this very search: it must not depend on its own results.

        Args:
            stores: folders; of a cell that several have, the first counts.
            searched: what is searched now.
        """
        self._stores = tuple(stores)
        self._own = {
            (cell.arch.name, json.dumps(cell.problem.exact_axes(), sort_keys=True))
            for cell in searched
        }
        self._read: dict[str, list[tuple[str, CellResult]]] = {}

    def warm_starts(self, cell: Cell, most: int = MOST) -> tuple[WarmStart, ...]:
        """At most so many, those of the nearest cells first: architecture, axes, clock or model."""
        chosen: dict[Config, WarmStart] = {}
        known = set(map(cell.space.binary_of, cell.defaults.values()))
        for start in self._candidates(cell):
            if len(chosen) >= most:
                break
            binary = cell.space.binary_of(start.config)
            if binary not in known and all(
                len(binary.changes_from(other)) >= _LEAST_CHANGES for other in chosen
            ):
                chosen[binary] = start
        return tuple(chosen.values())

    def _candidates(self, cell: Cell) -> Iterator[WarmStart]:
        exact = cell.problem.exact_axes()

        def rank(item: tuple[str, CellResult]) -> tuple[object, ...]:
            gpu, result = item
            differing = sum(result.exact[name] != value for name, value in exact.items())
            provenances = [list(Provenance).index(s.provenance) for s in result.selections]
            is_far = GPUS[gpu].target != cell.arch.target
            return is_far, differing > 0, min(provenances), differing, gpu, result.key

        for gpu, result in sorted(self._of(cell.spec.name), key=rank):
            if (gpu, result.key) in self._own:
                continue
            for config, provenance in _favourites(cell, result):
                axes = [f"{n}={v}" for n, v in result.exact.items() if v != exact[n]]
                yield WarmStart(config, " ".join((gpu, f"({provenance})", *axes)))

    def _of(self, kernel: str) -> list[tuple[str, CellResult]]:
        if kernel not in self._read:
            found: dict[tuple[str, str], CellResult] = {}
            for gpu in GPUS:
                for store in self._stores:
                    try:
                        cells = store.read(gpu, kernel)
                    except CorruptResultError:
                        continue  # what reads the file to use it says so
                    for result in cells:
                        found.setdefault((gpu, result.key), result)
            self._read[kernel] = [(gpu, result) for (gpu, _), result in found.items()]
        return self._read[kernel]


def _favourites(cell: Cell, result: CellResult) -> list[tuple[Config, str]]:
    """Configurations of a cell that are legal in another, the most often selected first."""
    counts: Counter[Config] = Counter()
    told: dict[Config, str] = {}
    for selection in result.selections:
        if selection.provenance is Provenance.DEFAULT:
            continue
        if cell.space.why_illegal(selection.config) is None:
            config = cell.space.named(selection.config)
            if config in cell.space:
                counts[config] += 1
                told.setdefault(config, selection.provenance.value)
    return [(config, told[config]) for config, _ in counts.most_common()]
