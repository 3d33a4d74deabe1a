"""The story of `autotune run`: search each cell, select per point, write the results."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.build import Builder
from autotune.cell import Cell
from autotune.cost_model import MODEL_VERSION
from autotune.deadline import Deadline
from autotune.effort import DEFAULT_SAMPLER, EFFORTS
from autotune.judge import DuplicateFinder
from autotune.measure import Device, measure
from autotune.progress import Reporter
from autotune.records import Environment, Evaluation, Selection, Status, to_json
from autotune.results import CellResult, ResultsStore
from autotune.search.candidates import Candidates
from autotune.search.ledger import Asked, Ledger, Storage, open_storage
from autotune.select import select


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How hard to search, and how to repeat it."""

    effort: str = "predict"
    trials: int | None = None
    """Binaries per cell; None for what the effort says."""
    sampler: str = DEFAULT_SAMPLER
    seed: int = 0
    resume: bool = False
    storage_url: str | None = None

    def trials_for(self, cell: Cell) -> int:
        """Number of binaries to try in a cell."""
        wanted = self.trials if self.trials is not None else EFFORTS[self.effort].trials
        return len(cell.binaries) if wanted is None else min(wanted, len(cell.binaries))


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
) -> list[Tuned]:
    """Search all cells in order, writing each result as soon as it is known.

    With a device the finalists of every point are timed on it; without, all is predicted.
    """
    done = []
    for number, cell in enumerate(cells):
        journal = studies / f"{_study_name(cell)}.journal"
        storage = open_storage(options.storage_url, journal, fresh=not options.resume)
        share = deadline.share(len(cells) - number)
        result = tune_cell(cell, builder, storage, options, share, reporter, device)
        path = store.merge(cell.arch.name, cell.spec.name, [result])
        done.append(Tuned(cell, result, path))
        reporter.line(f"[{number + 1}/{len(cells)}] {_one_line(cell, result)}")
    return done


def tune_cell(
    cell: Cell,
    builder: Builder,
    storage: Storage,
    options: SearchOptions,
    deadline: Deadline,
    reporter: Reporter,
    device: Device | None = None,
) -> CellResult:
    """Search one cell: seeds first, then the sampler, until trials or time run out."""
    trials = options.trials_for(cell)
    reporter.cell(cell.spec.name)  # all of the axes would push the bar off a terminal
    ledger = _open_ledger(cell, builder, storage, options, trials)
    duplicates = DuplicateFinder()
    evaluations: list[Evaluation] = []
    values: list[float] = []

    def judge(batch: Sequence[Asked], on_done: Callable[[], None]) -> list[float | None]:
        """Evaluate a batch; its objectives, None for what is out of the race."""
        configs = [cell.representative(asked.config) for asked in batch]
        judged = builder.evaluate(cell.spec, cell.problem, configs, on_done)
        screened = [duplicates.screen(evaluation) for evaluation in judged]
        evaluations.extend(screened)
        found = [cell.objective(e) if e.status is Status.OK else None for e in screened]
        values.extend(value for value in found if value is not None)
        reporter.state(min(values, default=None), _rejects(evaluations))
        return found

    told = ledger.told()  # of a run that was interrupted; its compilations are in the cache
    judge(told, lambda: None)
    reporter.advance(len(told))
    stopped = "trials"
    while batch := ledger.next_batch():
        before = len(evaluations)
        found = judge(batch, lambda: reporter.advance(1))
        for asked, value, evaluation in zip(batch, found, evaluations[before:], strict=True):
            main = evaluation.reports[0] if evaluation.reports else None
            ledger.tell(
                asked,
                value,
                evaluation.status.value,
                evaluation.reason,
                registers=main and main.registers,
                shared_bytes=main and main.shared_bytes,
            )
        if deadline.passed and len(evaluations) < trials:
            stopped = "budget"
            break
    if stopped == "budget":
        reporter.advance(trials - len(evaluations))
    selections = select(cell, evaluations)
    if device is not None:
        finalists = EFFORTS[options.effort].finalists
        selections = measure(cell, evaluations, selections, device, finalists)
    environment = builder.environment if device is None else device.describe(builder.environment)
    return _result(cell, builder, environment, options, evaluations, selections, stopped)


def _open_ledger(
    cell: Cell, builder: Builder, storage: Storage, options: SearchOptions, trials: int
) -> Ledger:
    knobs = [knob for knob in cell.space.knobs if not knob.host]
    exhaustive = trials == len(cell.binaries)
    candidates = Candidates(knobs, cell.binaries, None if exhaustive else cell.prior)
    identity = {
        "cell": cell.name,
        "space": _digest(str([(k.name, k.values) for k in knobs]) + str(len(cell.binaries))),
        "template": builder.templates.sha(cell.spec.template),
        "environment": to_json(builder.environment),
        "model": MODEL_VERSION,
        "sampler": options.sampler,
        "seed": options.seed,
        "trials": trials,
    }
    return Ledger.open(
        storage,
        _study_name(cell),
        identity,
        candidates,
        seeds=cell.binaries if exhaustive else cell.seeds(trials // 2),
        sampler=options.sampler,
        seed=options.seed,
        trials=trials,
        resume=options.resume,
    )


def _result(
    cell: Cell,
    builder: Builder,
    environment: Environment,
    options: SearchOptions,
    evaluations: Sequence[Evaluation],
    selections: Sequence[Selection],
    stopped: str,
) -> CellResult:
    outcomes = Counter(evaluation.status.value for evaluation in evaluations)
    return CellResult(
        exact=cell.problem.exact_axes(),
        template_sha=builder.templates.sha(cell.spec.template),
        environment=environment,
        search={
            "effort": options.effort,
            "sampler": options.sampler,
            "seed": options.seed,
            "model": MODEL_VERSION,
            "stopped_by": stopped,
            "space": {
                "cartesian": cell.space.cartesian_size,
                "legal": len(cell.space.legal),
                "binaries": len(cell.binaries),
            },
            "outcomes": dict(sorted(outcomes.items())),
        },
        selections=tuple(selections),
    )


def _one_line(cell: Cell, result: CellResult) -> str:
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


def _study_name(cell: Cell) -> str:
    return f"{cell.arch.name}-{cell.spec.name}-{_digest(cell.name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
