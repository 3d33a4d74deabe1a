"""The study of a cell: what it depends on, where it lies, and what it begins with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.build import Builder
from autotune.cell import Cell
from autotune.config import Config
from autotune.cost_model import MODEL_VERSION
from autotune.effort import EFFORTS, PREDICTING_SAMPLER
from autotune.objective import DEFAULT_OBJECTIVE
from autotune.records import Evaluation, to_json
from autotune.warm_starts import WarmStart

if TYPE_CHECKING:
    from autotune.search.ledger import Asked, Ledger, Storage


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


def study_identity(
    cell: Cell, builder: Builder, options: SearchOptions, warm: Sequence[WarmStart] = ()
) -> dict[str, Any]:
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
        # Named where they are unusual, so that studies begun without them go on.
        **({"warm": [str(binary) for binary in _binaries(cell, warm)]} if warm else {}),
        **({"objective": cell.objective_name} if cell.objective_name != DEFAULT_OBJECTIVE else {}),
    }


def open_study_storage(cell: Cell, studies: Path, options: SearchOptions) -> Storage:
    """Where its trials are kept: a database, or a journal that a fresh search empties."""
    from autotune.search.ledger import open_storage

    journal = studies / f"{study_name(cell)}.journal"
    return open_storage(options.storage_url, journal, fresh=not options.resume)


def open_ledger(
    cell: Cell,
    builder: Builder,
    storage: Storage,
    options: SearchOptions,
    warm: Sequence[WarmStart] = (),
) -> Ledger:
    """Open the study of a cell: its seeds are enqueued, or it goes on where it was.

    Of a search that does not learn, the whole list is enqueued, in the order of `tune_cell`.
    """
    from autotune.search.candidates import Candidates
    from autotune.search.ledger import Ledger

    trials = options.trials_for(cell)
    knobs = [knob for knob in cell.space.knobs if not knob.host]
    is_listed = not options.learns or trials == len(cell.binaries)
    return Ledger.open(
        storage,
        study_name(cell),
        study_identity(cell, builder, options, warm),
        Candidates(knobs, cell.binaries, None if is_listed else cell.prior),
        seeds=listed(cell, trials, warm) if is_listed else cell.seeds(trials // 2 - len(warm)),
        sampler=options.sampler if options.learns else "random",  # Optuna asks it all the same
        seed=options.seed,
        trials=trials,
        resume=options.resume,
        foreign=() if is_listed else _binaries(cell, warm),
    )


def listed(cell: Cell, trials: int, warm: Sequence[WarmStart] = ()) -> list[Config]:
    """All binaries in order, or the seeds and those that the model likes best."""
    if trials == len(cell.binaries):
        return list(cell.binaries)
    prior = dict(zip(cell.binaries, cell.prior, strict=True))
    first = dict.fromkeys((*_binaries(cell, warm), *cell.seeds(trials)))
    return list(dict.fromkeys((*first, *sorted(cell.binaries, key=prior.__getitem__))))[:trials]


def _binaries(cell: Cell, warm: Sequence[WarmStart]) -> list[Config]:
    return [cell.space.binary_of(start.config) for start in warm]


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


def study_name(cell: Cell) -> str:
    """Name of the study of a cell: GPU, kernel, and a digest of the exact axes."""
    return f"{cell.arch.name}-{cell.spec.name}-{_digest(cell.name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
