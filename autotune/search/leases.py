"""One search shared by many processes: trials are leased, judged anywhere, and told in order.

The study itself holds everything. A trial's note `lease` names the worker that evaluates it, its
note `evaluation` what came of it; a worker that holds a lease counts up its `beat` on the study. A
worker whose beat stands still is dead, by the clock of whoever looks: clocks of different machines
are never compared. All steps but the beat are taken in turns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from autotune.errors import StorageError
from autotune.search.ledger import Asked, Ledger

LEASE, EVALUATION, FINISHER, RESULT = "lease", "evaluation", "finisher", "result"

Settle = Callable[[Sequence[Asked], Mapping[int, Mapping[str, Any]]], None]
"""Tells a batch, all of whose trials have been evaluated; gets the notes on all trials."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker may do next."""

    trials: tuple[Asked, ...]
    """Leased to the caller; empty if others hold all that is open."""
    over: bool
    """Every trial of the search has been told."""


class Watch:
    """Tells the dead from the living by beats that stand still for `patience_s` seconds."""

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience_s = patience_s
        self._clock = clock
        self._seen: dict[str, tuple[Any, float]] = {}

    def alive(self, worker: str, beat: int | None) -> bool:
        """Whether the worker's beat has changed lately, as far as this watch has seen."""
        now = self._clock()
        known = self._seen.get(worker)
        if known is None or known[0] != beat:
            self._seen[worker] = (beat, now)
            return True
        return now - known[1] < self.patience_s


class SharedLedger:
    """A ledger as one worker of several sees it."""

    def __init__(
        self,
        ledger: Ledger,
        turn: Callable[[], AbstractContextManager[None]],
        worker: str,
        watch: Watch,
    ) -> None:
        self.ledger = ledger
        self.watch = watch
        self._turn = turn
        self._worker = worker
        self._beats = 0

    def claim(self, limit: int, settle: Settle) -> Claim:
        """Lease up to `limit` trials; batches that are complete are told first.

        The next batch is asked when all of the last one has been told, as in a search by one
        process: the sampler sees the same trials, whoever evaluated them.
        """
        with self._turn():
            while batch := self.ledger.next_batch():
                notes = self.ledger.notes()
                pending = [asked for asked in batch if EVALUATION not in notes[asked.number]]
                if pending:
                    break
                settle(batch, notes)
            else:
                return Claim((), over=True)
            study = self.ledger.study_notes()
            free = [a for a in pending if not self._held(notes[a.number].get(LEASE), study)]
            mine = tuple(free[:limit])
            if mine:
                self.beat()
            for asked in mine:
                self.ledger.note(asked.number, LEASE, self._worker)
            return Claim(mine, over=False)

    def record(self, judged: Iterable[tuple[Asked, Mapping[str, Any]]]) -> int:
        """Note what came of leased trials; returns how many still were this worker's.

        A worker that was held up so long that others took its trials over is too late.
        """
        recorded = 0
        with self._turn():
            notes = self.ledger.notes()
            for asked, evaluation in judged:
                known = notes[asked.number]
                if known.get(LEASE) == self._worker and EVALUATION not in known:
                    self.ledger.note(asked.number, EVALUATION, dict(evaluation))
                    recorded += 1
        return recorded

    def claim_end(self) -> bool:
        """Lease the last step, from evaluations to the result, unless it is done or being done."""
        with self._turn():
            study = self.ledger.study_notes()
            if RESULT in study or self._held(study.get(FINISHER), study):
                return False
            self.beat()
            self.ledger.note_study(FINISHER, self._worker)
            return True

    def end(self, result: str) -> bool:
        """Store the result of the search; False if somebody else has taken that over."""
        with self._turn():
            study = self.ledger.study_notes()
            if RESULT in study or study.get(FINISHER) != self._worker:
                return False
            self.ledger.note_study(RESULT, result)
            return True

    def release(self) -> None:
        """Give back whatever this worker holds here, so that nobody has to wait for it."""
        with self._turn():
            for number, known in self.ledger.notes().items():
                if known.get(LEASE) == self._worker and EVALUATION not in known:
                    self.ledger.note(number, LEASE, None)
            if self.ledger.study_notes().get(FINISHER) == self._worker:
                self.ledger.note_study(FINISHER, None)

    def beat(self) -> None:
        """Show that this worker lives."""
        self._beats += 1
        self.ledger.note_study(_beat(self._worker), self._beats)

    def _held(self, owner: str | None, study: Mapping[str, Any]) -> bool:
        """Whether a lease is somebody else's who is alive."""
        if owner is None or owner == self._worker:
            return False
        return self.watch.alive(owner, study.get(_beat(owner)))


class Heartbeat:
    """Beats four times within the others' patience while its block runs."""

    def __init__(self, ledger: SharedLedger) -> None:
        self._ledger = ledger
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._ledger.watch.patience_s / 4):
            try:
                self._ledger.beat()
            except (StorageError, StorageInternalError, SQLAlchemyError, OSError):
                return  # recording will meet the same error, or find the lease gone


def _beat(worker: str) -> str:
    return f"beat {worker}"
