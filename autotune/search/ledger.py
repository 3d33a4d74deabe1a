"""One search's record on disk: what was asked, what came of it, and how to go on after a kill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from autotune.config import Config
from autotune.errors import StorageError, UsageError
from autotune.search.candidates import Candidates
from autotune.search.journal import Journal, repair_journal
from autotune.search.samplers import FOREIGN, make_sampler

Storage = BaseStorage
"""Optuna's storage, named here so that nobody else imports optuna."""

BATCH_SIZE = 8
"""Trials asked together, then evaluated in parallel, before the sampler learns from them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A trial in flight."""

    number: int
    config: Config


class Ledger:
    """An Optuna study over a finite set of candidates."""

    def __init__(
        self, study: optuna.Study, candidates: Candidates, trials: int, batch_size: int
    ) -> None:
        self._study = study
        self._candidates = candidates
        self._batch_size = batch_size
        self._trials = min(trials, len(candidates))

    @classmethod
    def open(
        cls,
        storage: BaseStorage,
        name: str,
        identity: Mapping[str, Any],
        candidates: Candidates,
        seeds: Sequence[Config],
        sampler: str,
        seed: int,
        trials: int,
        resume: bool,
        batch_size: int = BATCH_SIZE,
        foreign: Sequence[Config] = (),
    ) -> Ledger:
        """Open or create the study `name`.

        `identity` says what the study depends on; a study of another identity, or any when not
        resuming, is deleted first. `seeds` are tried before the sampler is asked, and before them
        `foreign` ones, another GPU's best: tried, and not learned from.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        known = optuna.get_all_study_names(storage)
        if name in known:
            found = optuna.load_study(study_name=name, storage=storage)
            if not resume or found.user_attrs.get("identity") != dict(identity):
                optuna.delete_study(study_name=name, storage=storage)
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            sampler=make_sampler(sampler, candidates, seed, batch_size, trials),
            direction="minimize",
            load_if_exists=True,
        )
        study.set_user_attr("identity", dict(identity))
        ledger = cls(study, candidates, trials, batch_size)
        # Some are there already if a run was killed at this place.
        borrowed = list(dict.fromkeys(foreign))[: ledger.total_trials // 2]
        for config in borrowed:
            study.enqueue_trial(dict(config), user_attrs={FOREIGN: True}, skip_if_exists=True)
        own = [config for config in dict.fromkeys(seeds) if config not in set(borrowed)]
        for config in own[: ledger.total_trials - len(borrowed)]:
            study.enqueue_trial(dict(config), skip_if_exists=True)
        return ledger

    def next_batch(self) -> list[Asked]:
        """Trials to evaluate now: those in flight when a run was killed, else a fresh batch.

        A batch is asked in full before any of it is told. So if a trial of the last batch has been
        told, only the rest of that batch is open; if none has, asking may have been cut short.
        """
        asked = [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state is not TrialState.WAITING
        ]
        total = len(asked)
        last = asked[(total - 1) // self._batch_size * self._batch_size :] if total else []
        running = [trial for trial in asked if trial.state is TrialState.RUNNING]
        if running:
            missing = self._batch_size - len(last) if len(running) == len(last) else 0
        else:
            missing = self._batch_size - total % self._batch_size
        batch = [self._resumed(trial) for trial in running]
        return batch + [self._ask() for _ in range(min(missing, self._trials - total))]

    def _ask(self) -> Asked:
        trial = self._study.ask(fixed_distributions=self._candidates.distributions)
        return Asked(trial.number, Config(trial.params))

    def _resumed(self, frozen: FrozenTrial) -> Asked:
        """Take up a trial that a dead process had asked, finishing its parameters if it had not."""
        if frozen.params.keys() == self._candidates.distributions.keys():
            return Asked(frozen.number, Config(frozen.params))
        trial = optuna.trial.Trial(self._study, frozen._trial_id)
        for name, distribution in self._candidates.distributions.items():
            if isinstance(distribution, IntDistribution):
                trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
            elif isinstance(distribution, CategoricalDistribution):
                trial.suggest_categorical(name, distribution.choices)
        return Asked(frozen.number, Config(trial.params))

    def tell(
        self, asked: Asked, value: float | None, status: str, reason: str | None, **facts: Any
    ) -> None:
        """Record an outcome: a value (smaller is better), or None for a failure with its reason.

        Failures are told PRUNED: Optuna's samplers learn from those, and ignore FAIL.
        """
        for name, fact in {"status": status, "reason": reason, **facts}.items():
            if fact is not None:
                self.note(asked.number, name, fact)
        if value is None:
            self._study.tell(asked.number, state=TrialState.PRUNED)
        else:
            self._study.tell(asked.number, value)

    def told(self) -> list[Asked]:
        """Trials that are over, in order."""
        over = (TrialState.COMPLETE, TrialState.PRUNED)
        return [
            Asked(trial.number, Config(trial.params))
            for trial in self._study.get_trials(deepcopy=False, states=over)
        ]

    def note(self, number: int, name: str, fact: Any) -> None:
        """Write a fact (JSON types) beside a trial that is not over."""
        storage, study = self._study._storage, self._study._study_id
        trial = storage.get_trial_id_from_study_id_trial_number(study, number)
        storage.set_trial_user_attr(trial, name, fact)

    def notes(self) -> dict[int, Mapping[str, Any]]:
        """What has been noted beside each trial, by its number."""
        trials = self._study.get_trials(deepcopy=False)
        return {trial.number: trial.user_attrs for trial in trials}

    def note_study(self, name: str, fact: Any) -> None:
        """Write a fact (JSON types) beside the study."""
        self._study.set_user_attr(name, fact)

    def study_notes(self) -> Mapping[str, Any]:
        """What has been noted beside the study."""
        return self._study.user_attrs

    @property
    def total_trials(self) -> int:
        """How many trials this search will make in all."""
        return self._trials


def memory_storage() -> BaseStorage:
    """Storage that ends with the process, for replays."""
    return InMemoryStorage()


def open_storage(url: str | None, journal: Path, fresh: bool) -> BaseStorage:
    """Storage at a database URL, or the journal file (a torn last line is cut off first).

    A fresh journal starts empty; in a database, `Ledger.open` deletes the one study.

    Raises:
        UsageError: the URL is not understood, or nothing answers there.
        StorageError: the journal's folder cannot be written.
    """
    if url is not None:
        try:
            return RDBStorage(url)
        except (ValueError, ImportError, SQLAlchemyError) as error:
            complaint = str(error).partition("\n")[0]
            raise UsageError(f"--storage {url}: {complaint}") from error
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            journal.unlink(missing_ok=True)
        repair_journal(journal)
        return JournalStorage(Journal(journal))
    except OSError as error:
        raise StorageError(f"cannot use the study file {journal}: {error}") from error
