"""One cell that several workers search together, as one of them sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from autotune.arch import lookup
from autotune.build import Builder
from autotune.cell import Cell
from autotune.conclusion import conclude
from autotune.config import Config
from autotune.errors import UsageError
from autotune.judge import DuplicateFinder
from autotune.kernels import load_kernel
from autotune.measure import Device
from autotune.objective import DEFAULT_OBJECTIVE
from autotune.progress import Reporter
from autotune.records import CompileReport, Evaluation, Status, to_json
from autotune.results import CellResult, parse_results, results_text
from autotune.search.leases import EVALUATION, RESULT, Heartbeat, SharedLedger, Watch
from autotune.search.ledger import Asked
from autotune.search.shared import SharedStorage
from autotune.study import SearchOptions, open_ledger, study_identity, study_name, tell

REQUEST = "request"
"""Note on a study that says what it is for, so that a worker can join knowing the storage only."""


@dataclass(frozen=True, slots=True)
class Task:
    """A cell, and how to search it."""

    cell: Cell
    options: SearchOptions

    @property
    def request(self) -> dict[str, Any]:
        """The same in JSON types."""
        objective = self.cell.objective_name
        return {
            "gpu": self.cell.arch.name,
            "kernel": self.cell.spec.name,
            "exact": self.cell.problem.exact_axes(),
            "variants": self.cell.variants,
            "repeatable": self.cell.repeatable,
            "effort": self.options.effort,
            "sampler": self.options.sampler,
            "seed": self.options.seed,
            "trials": self.options.trials_for(self.cell),
            **({} if objective == DEFAULT_OBJECTIVE else {"objective": objective}),
        }

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> Task:
        """Inverse of `request`."""
        spec = load_kernel(request["kernel"])
        problem = spec.problem_type.from_axes(request["exact"])
        options = SearchOptions(
            request["effort"], request["trials"], request["sampler"], request["seed"], resume=True
        )
        cell = Cell(
            spec,
            lookup(request["gpu"]),
            problem,
            variants=request["variants"],
            repeatable=request["repeatable"],
            objective=request.get("objective", DEFAULT_OBJECTIVE),
        )
        return cls(cell, options)


class Step(Enum):
    """What came of an attempt to move a cell on."""

    WORKED = auto()
    WAITING = auto()
    """All that is left is in other workers' hands."""
    OVER = auto()
    """The result is known."""


class SharedSearch:
    """A study, this worker's leases on it, and what it has read of the others' evaluations."""

    def __init__(
        self,
        task: Task,
        builder: Builder,
        shared: SharedStorage,
        worker: str,
        patience_s: float,
        reporter: Reporter,
        device: Device | None = None,
    ) -> None:
        self.task = task
        self.name = study_name(task.cell)
        self._builder = builder
        self._shared = shared
        self._worker = worker
        self._watch = Watch(patience_s)
        self._reporter = reporter
        self._device = device
        self._ledger: SharedLedger | None = None
        self._duplicates = DuplicateFinder()
        self._screened: list[Evaluation] = []
        self._best_us: float | None = None
        self._reported = 0
        self._result: CellResult | None = None

    @property
    def result(self) -> CellResult | None:
        """What was found, by whichever worker came to the end; None while the search goes on."""
        if self._result is None:
            notes = self._shared.notes_of(self.name)
            if notes is not None and RESULT in notes:
                self._check(notes)
                gpu, kernel = self.task.cell.arch.name, self.task.cell.spec.name
                source = f"the result in the study {self.name}"
                (self._result,) = parse_results(notes[RESULT], gpu, kernel, source)
        return self._result

    def step(self, limit: int) -> Step:
        """Evaluate up to `limit` trials, or conclude the search, if there is anything to do.

        Raises:
            UsageError: the study was begun with other options, or other versions of the tools.
        """
        if self.result is not None:
            return Step.OVER
        self._reporter.cell(self.task.cell.spec.name)
        with ExitStack() as undo:
            ledger = self._opened()
            undo.callback(ledger.release)  # interrupts included
            claim = ledger.claim(limit, self._settle)
            self._report()
            if claim.over:
                outcome = self._conclude(ledger)
            elif claim.trials:
                self._evaluate(ledger, claim.trials)
                outcome = Step.WORKED
            else:
                outcome = Step.WAITING
            undo.pop_all()
        return outcome

    def _opened(self) -> SharedLedger:
        if self._ledger is None:
            task = self.task
            with self._shared.turns.turn(self.name):
                storage = self._shared.storage(self.name)
                notes = self._shared.notes_of(self.name)
                if notes is not None:
                    self._check(notes)
                ledger = open_ledger(task.cell, self._builder, storage, task.options)
                ledger.note_study(REQUEST, task.request)
            self._ledger = SharedLedger(
                ledger, lambda: self._shared.turns.turn(self.name), self._worker, self._watch
            )
        return self._ledger

    def _check(self, notes: Mapping[str, Any]) -> None:
        """Refuse a study that is not the same search."""
        own = study_identity(self.task.cell, self._builder, self.task.options)
        known = notes.get("identity", own)  # whoever made the study was killed before naming it
        theirs, ours = dict(known), dict(own)
        theirs |= notes.get(REQUEST, {})
        ours |= self.task.request if REQUEST in notes else {}
        differing = [
            f"{name} {theirs.get(name)!r} (here {ours.get(name)!r})"
            for name in sorted(theirs.keys() | ours.keys())
            if theirs.get(name) != ours.get(name)
        ]
        if differing:
            raise UsageError(
                f"the study {self.name} was begun with {', '.join(differing)}. Workers that share "
                "a search need the same; choose another --storage for another search"
            )

    def _evaluate(self, ledger: SharedLedger, trials: Sequence[Asked]) -> None:
        with Heartbeat(ledger):
            judged = self._judge(trials)
        ledger.record(
            (asked, _to_note(evaluation)) for asked, evaluation in zip(trials, judged, strict=True)
        )

    def _judge(self, trials: Sequence[Asked]) -> list[Evaluation]:
        cell = self.task.cell
        configs = [cell.representative(asked.config) for asked in trials]
        return self._builder.evaluate(cell.spec, cell.problem, configs)

    def _settle(self, batch: Sequence[Asked], notes: Mapping[int, Mapping[str, Any]]) -> None:
        """Tell a batch, in order: which of two alike counts as the duplicate depends on it."""
        assert self._ledger is not None
        self._catch_up(notes)
        for asked in batch:
            evaluation, value = self._add(asked, notes[asked.number])
            tell(self._ledger.ledger, asked, value, evaluation)

    def _catch_up(self, notes: Mapping[int, Mapping[str, Any]]) -> None:
        """Read the evaluations of trials that were told since the last look, in order."""
        assert self._ledger is not None
        for asked in self._ledger.ledger.told()[len(self._screened) :]:
            self._add(asked, notes[asked.number])

    def _add(self, asked: Asked, notes: Mapping[str, Any]) -> tuple[Evaluation, float | None]:
        """The next evaluation in order, and its objective, None for what is out of the race."""
        if EVALUATION in notes:
            config = self.task.cell.representative(asked.config)
            evaluation = _from_note(config, notes[EVALUATION])
        else:  # told by `autotune run`, which keeps no evaluations but in its cache
            (evaluation,) = self._judge([asked])
        evaluation = self._duplicates.screen(evaluation)
        self._screened.append(evaluation)
        if evaluation.status is not Status.OK:
            return evaluation, None
        value = self.task.cell.objective(evaluation)
        self._best_us = value if self._best_us is None else min(value, self._best_us)
        return evaluation, value

    def _conclude(self, ledger: SharedLedger) -> Step:
        if not ledger.claim_end():
            return Step.OVER if self.result is not None else Step.WAITING
        task = self.task
        with Heartbeat(ledger):
            self._catch_up(ledger.ledger.notes())
            result = conclude(
                task.cell, self._builder, task.options, self._screened, "trials", self._device
            )
        ledger.end(results_text(task.cell.arch.name, task.cell.spec.name, [result]))
        return Step.WORKED

    def _report(self) -> None:
        assert self._ledger is not None
        told = len(self._ledger.ledger.told())
        self._reporter.advance(told - self._reported)
        self._reported = told
        rejects = Counter(e.status.value for e in self._screened if e.status is not Status.OK)
        self._reporter.state(self._best_us, dict(rejects))


def _to_note(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "status": evaluation.status.value,
        "reason": evaluation.reason,
        "reports": [to_json(report) for report in evaluation.reports],
    }


def _from_note(config: Config, note: Mapping[str, Any]) -> Evaluation:
    reports = tuple(CompileReport.from_json(report) for report in note["reports"])
    return Evaluation(config, Status(note["status"]), note["reason"], reports)
