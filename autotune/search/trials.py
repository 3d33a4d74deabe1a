"""What a study remembers of its trials, read back for a report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from autotune.errors import CorruptResultError
from autotune.search.journal import Journal


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """One search, trial by trial."""

    name: str
    cell: str
    values_us: tuple[float | None, ...]
    """Objective of each trial in order; None for a rejected one."""
    importance: tuple[tuple[str, float], ...]
    """Knobs by their share of what the objective varies, largest first; empty if too few trials."""


def read_studies(folder: Path) -> Iterator[StudyRecord]:
    """Read every journal below a folder.

    Raises:
        CorruptResultError: a journal cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for path in sorted(folder.glob("*.journal")):
        try:
            storage = JournalStorage(Journal(path))
            for study in optuna.get_all_study_names(storage):
                yield _record(optuna.load_study(study_name=study, storage=storage))
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise CorruptResultError(f"cannot read the study {path}: {error!r}") from error


def _record(study: optuna.Study) -> StudyRecord:
    over = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = study.get_trials(deepcopy=False, states=over)
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    importance: dict[str, float] = {}
    if len({trial.value for trial in done}) > 2:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        importance = optuna.importance.get_param_importances(study, evaluator=evaluator)
    identity = study.user_attrs.get("identity", {})
    return StudyRecord(
        study.study_name,
        str(identity.get("cell", study.study_name)),
        tuple(t.value if t.state is TrialState.COMPLETE else None for t in trials),
        tuple(importance.items()),
    )
