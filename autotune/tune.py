"""The story of `autotune run`: search each cell, select per point, write the results."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.build import Builder
from autotune.cell import Cell
from autotune.cost_model import MODEL_VERSION
from autotune.deadline import Deadline
from autotune.effort import EFFORTS, PREDICTING_SAMPLER
from autotune.judge import DuplicateFinder
from autotune.measure import Device, measure
from autotune.progress import Reporter
from autotune.records import Environment, Evaluation, Selection, Status, to_json
from autotune.results import CellResult, ResultsStore
from autotune.select import select
from autotune.space import Config

if TYPE_CHECKING:
    from autotune.search.ledger import Asked, Ledger, Storage

_BATCH = 64
"""Binaries of an exhaustive run between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How hard to search, and how to repeat it."""

    effort: str = "predict"
    trials: int | None = None
    """Binaries per cell; None for what the effort says."""
    sampler: str = PREDICTING_SAMPLER
    seed: int = 0
    resume: bool = False
    storage_url: str | None = None

    def trials_for(self, cell: Cell) -> int:
        """Number of binaries to try in a cell."""
        wanted = self.trials if self.trials is not None else EFFORTS[self.effort].trials
        return len(cell.binaries) if wanted is None else min(wanted, len(cell.binaries))

    @property
    def learns(self) -> bool:
        """Whether a sampler picks; "exhaustive" goes through a list and needs no Optuna."""
        return self.effort != "exhaustive"


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
        storage = _open_storage(cell, studies, options) if options.learns else None
        share = deadline.share(len(cells) - number)
        result = tune_cell(cell, builder, storage, options, share, reporter, device)
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
) -> CellResult:
    """Search one cell until trials or time run out, then select and, with a device, measure."""
    trials = options.trials_for(cell)
    reporter.cell(cell.spec.name)  # all of the axes would push the bar off a terminal
    judge = _Judge(cell, builder, reporter)
    if storage is None:
        stopped = _list_all(judge, trials, deadline)
    else:
        ledger = open_ledger(cell, builder, storage, options)
        stopped = _search(judge, ledger, trials, deadline)
    if stopped == "budget":
        reporter.advance(trials - len(judge.evaluations))
    return conclude(cell, builder, options, judge.evaluations, stopped, device)


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


def _list_all(judge: _Judge, trials: int, deadline: Deadline) -> str:
    """Go through a list of binaries; says why it ended."""
    order = _listed(judge.cell, trials)
    for start in range(0, len(order), _BATCH):
        judge(order[start : start + _BATCH], lambda: judge.reporter.advance(1))
        if deadline.passed and start + _BATCH < len(order):
            return "budget"
    return "trials"


def _listed(cell: Cell, trials: int) -> list[Config]:
    """All binaries in order, or the seeds and those that the model likes best."""
    if trials == len(cell.binaries):
        return list(cell.binaries)
    prior = dict(zip(cell.binaries, cell.prior, strict=True))
    first = dict.fromkeys(cell.seeds(trials))
    return list(dict.fromkeys((*first, *sorted(cell.binaries, key=prior.__getitem__))))[:trials]


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


def tell(ledger: Ledger, asked: Asked, value: float | None, evaluation: Evaluation) -> None:
    """Tell the ledger what came of a trial, with the facts that a study should show."""
    main = evaluation.reports[0] if evaluation.reports else None
    ledger.tell(
        asked,
        value,
        evaluation.status.value,
        evaluation.reason,
        registers=main and main.registers,
        shared_bytes=main and main.shared_bytes,
    )


def conclude(
    cell: Cell,
    builder: Builder,
    options: SearchOptions,
    evaluations: Sequence[Evaluation],
    stopped: str,
    device: Device | None,
) -> CellResult:
    """Select per point among all evaluations, in the order of their trials; time the finalists."""
    selections = select(cell, evaluations)
    if device is not None:
        finalists = EFFORTS[options.effort].finalists
        compiled = [*evaluations, *_missing_defaults(cell, builder, evaluations)]
        selections = measure(cell, compiled, selections, device, finalists)
    environment = builder.environment if device is None else device.describe(builder.environment)
    return _result(cell, builder, environment, options, evaluations, selections, stopped)


def _missing_defaults(
    cell: Cell, builder: Builder, evaluations: Sequence[Evaluation]
) -> list[Evaluation]:
    """Compile the defaults that a search of few trials left out: they race at every point."""
    known = {cell.space.binary_of(evaluation.config) for evaluation in evaluations}
    wanted = dict.fromkeys(map(cell.space.binary_of, cell.defaults.values()))
    configs = [cell.representative(binary) for binary in wanted if binary not in known]
    return builder.evaluate(cell.spec, cell.problem, configs)


def _open_storage(cell: Cell, studies: Path, options: SearchOptions) -> Storage:
    from autotune.search.ledger import open_storage

    journal = studies / f"{study_name(cell)}.journal"
    return open_storage(options.storage_url, journal, fresh=not options.resume)


def study_identity(cell: Cell, builder: Builder, options: SearchOptions) -> dict[str, Any]:
    """What the trials of a cell depend on: only searches that agree on it share a study."""
    knobs = [knob for knob in cell.space.knobs if not knob.host]
    return {
        "cell": cell.name,
        "space": _digest(str([(k.name, k.values) for k in knobs]) + str(len(cell.binaries))),
        "template": builder.templates.sha(cell.spec.template),
        "environment": to_json(builder.environment),
        "model": MODEL_VERSION,
        "sampler": options.sampler if options.learns else f"none ({options.effort})",
        "seed": options.seed,
        "trials": options.trials_for(cell),
        **({"deterministic": True} if cell.repeatable else {}),
    }


def open_ledger(cell: Cell, builder: Builder, storage: Storage, options: SearchOptions) -> Ledger:
    """Open the study of a cell: its seeds are enqueued, or it goes on where it was.

    Of a search that does not learn, the whole list is enqueued, in the order of `tune_cell`.
    """
    from autotune.search.candidates import Candidates
    from autotune.search.ledger import Ledger

    trials = options.trials_for(cell)
    knobs = [knob for knob in cell.space.knobs if not knob.host]
    listed = not options.learns or trials == len(cell.binaries)
    return Ledger.open(
        storage,
        study_name(cell),
        study_identity(cell, builder, options),
        Candidates(knobs, cell.binaries, None if listed else cell.prior),
        seeds=_listed(cell, trials) if listed else cell.seeds(trials // 2),
        sampler=options.sampler if options.learns else "random",  # Optuna asks it all the same
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
                **({"variants": sorted(cell.space.plain)} if cell.variants else {}),
            },
            **_order_found(cell, selections),
            "outcomes": dict(sorted(outcomes.items())),
        },
        selections=tuple(selections),
    )


def _order_found(cell: Cell, selections: Sequence[Selection]) -> dict[str, Any]:
    if not cell.repeatable:
        return {}
    order, *others = {cell.order(cell.space.named(one.config)) for one in selections}
    assert order is not None
    assert not others, "selections of a repeatable cell agree"
    return {"reduction_order": dict(order)}


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


def study_name(cell: Cell) -> str:
    """Name of the study of a cell: GPU, kernel, and a digest of the exact axes."""
    return f"{cell.arch.name}-{cell.spec.name}-{_digest(cell.name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
