"""The story of `autotune run`: search each cell, select per point, write the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.build import Builder
from autotune.cell import Cell
from autotune.conclusion import conclude
from autotune.config import Config
from autotune.deadline import Deadline
from autotune.judge import DuplicateFinder
from autotune.measure import Device
from autotune.progress import Reporter
from autotune.records import Evaluation, Status
from autotune.results import CellResult, ResultsStore
from autotune.study import SearchOptions, listed, open_ledger, open_study_storage, tell
from autotune.warm_starts import MOST, Elsewhere, WarmStart

if TYPE_CHECKING:
    from autotune.search.ledger import Ledger, Storage

_BATCH = 64
"""Binaries of an exhaustive run between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """One searched cell."""

    cell: Cell
    result: CellResult
    path: Path


def tune(
    cells: Sequence[Cell],
    builder: Builder,
    store: ResultsStore,
    studies: Path,
    options: SearchOptions,
    deadline: Deadline,
    reporter: Reporter,
    device: Device | None = None,
    elsewhere: Elsewhere | None = None,
) -> list[Tuned]:
    """Search all cells in order, writing each result as soon as it is known.

    With a device the finalists of every point are timed on it; without, all is predicted. With
    `elsewhere` each search begins with a few configurations that won there.
    """
    done = []
    for number, cell in enumerate(cells):
        storage = open_study_storage(cell, studies, options) if options.learns else None
        share = deadline.share(len(cells) - number)
        warm: tuple[WarmStart, ...] = ()
        if elsewhere is not None:
            # A quarter of a small search at most: half of it is for the sampler.
            warm = elsewhere.warm_starts(cell, min(MOST, options.trials_for(cell) // 4))
            _tell_warm(cell, warm, reporter)
        result = tune_cell(cell, builder, storage, options, share, reporter, device, warm)
        path = store.merge(cell.arch.name, cell.spec.name, [result])
        done.append(Tuned(cell, result, path))
        reporter.line(f"[{number + 1}/{len(cells)}] {one_line(cell, result)}")
    return done


def tune_cell(
    cell: Cell,
    builder: Builder,
    storage: Storage | None,
    options: SearchOptions,
    deadline: Deadline,
    reporter: Reporter,
    device: Device | None = None,
    warm: Sequence[WarmStart] = (),
) -> CellResult:
    """Search one cell until trials or time run out, then select and, with a device, measure."""
    trials = options.trials_for(cell)
    reporter.cell(cell.spec.name)  # all of the axes would push the bar off a terminal
    judge = _Judge(cell, builder, reporter)
    if storage is None:
        stopped = _list_all(judge, trials, deadline, warm)
    else:
        ledger = open_ledger(cell, builder, storage, options, warm)
        stopped = _search(judge, ledger, trials, deadline)
    if stopped == "budget":
        reporter.advance(trials - len(judge.evaluations))
    return conclude(cell, builder, options, judge.evaluations, stopped, device, warm)


def _tell_warm(cell: Cell, warm: Sequence[WarmStart], reporter: Reporter) -> None:
    if warm:
        origins = Counter(start.origin for start in warm)
        told = ", ".join(f"{count} of {origin}" for origin, count in origins.items())
        reporter.line(f"{cell.spec.name} {cell.problem.label('exact')}: warm starts: {told}")


class _Judge:
    """Evaluates batches of binaries, remembers all, and reports."""

    def __init__(self, cell: Cell, builder: Builder, reporter: Reporter) -> None:
        self.cell = cell
        self.reporter = reporter
        self.evaluations: list[Evaluation] = []
        self._builder = builder
        self._duplicates = DuplicateFinder()
        self._best: float | None = None

    def __call__(
        self, binaries: Sequence[Config], on_done: Callable[[], None]
    ) -> list[float | None]:
        """Evaluate a batch; its objectives, None for what is out of the race."""
        configs = [self.cell.representative(binary) for binary in binaries]
        judged = self._builder.evaluate(self.cell.spec, self.cell.problem, configs, on_done)
        screened = [self._duplicates.screen(evaluation) for evaluation in judged]
        self.evaluations.extend(screened)
        found = [self.cell.objective(e) if e.status is Status.OK else None for e in screened]
        known = [value for value in (self._best, *found) if value is not None]
        self._best = min(known, default=None)
        self.reporter.state(self._best, _rejects(self.evaluations))
        return found


def _list_all(judge: _Judge, trials: int, deadline: Deadline, warm: Sequence[WarmStart]) -> str:
    """Go through a list of binaries; says why it ended."""
    order = listed(judge.cell, trials, warm)
    for start in range(0, len(order), _BATCH):
        judge(order[start : start + _BATCH], lambda: judge.reporter.advance(1))
        if deadline.passed and start + _BATCH < len(order):
            return "budget"
    return "trials"


def _search(judge: _Judge, ledger: Ledger, trials: int, deadline: Deadline) -> str:
    """Let the ledger ask, seeds first, then the sampler; says why it ended."""
    told = ledger.told()  # of a run that was interrupted; its compilations are in the cache
    judge([asked.config for asked in told], lambda: None)
    judge.reporter.advance(len(told))
    while batch := ledger.next_batch():
        before = len(judge.evaluations)
        found = judge([asked.config for asked in batch], lambda: judge.reporter.advance(1))
        for asked, value, evaluation in zip(batch, found, judge.evaluations[before:], strict=True):
            tell(ledger, asked, value, evaluation)
        if deadline.passed and len(judge.evaluations) < trials:
            return "budget"
    return "trials"


def one_line(cell: Cell, result: CellResult) -> str:
    """What came of a cell, for a log."""
    outcomes = result.search["outcomes"]
    gains = [selection.gain for selection in result.selections if selection.gain is not None]
    best = f"up to {max(gains):.2f}x the default" if gains else "no usable default"
    provenance = "/".join(sorted({s.provenance.value for s in result.selections}))
    return (
        f"{cell.spec.name} {cell.problem.label('exact')}: {outcomes.get('ok', 0)} of "
        f"{sum(outcomes.values())} sound, {best} ({provenance})"
    )


def _rejects(evaluations: Sequence[Evaluation]) -> dict[str, int]:
    return dict(Counter(e.status.value for e in evaluations if e.status is not Status.OK))
