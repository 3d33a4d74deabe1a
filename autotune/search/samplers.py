"""Samplers by name. Each proposes unseen legal configurations only, and the same ones per seed."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from autotune.effort import SAMPLERS
from autotune.errors import UnknownChoiceError
from autotune.search.blend import BlendModel
from autotune.search.candidates import Candidates
from autotune.search.classifier import ClassifierModel
from autotune.search.forest import ForestModel
from autotune.search.history import History

FOREIGN = "foreign"
"""Note on a trial that was fast on another GPU. Our samplers do not ask it again, and do not learn
from it: four early favourites keep a model in the region where the other GPU is fast."""


class FiniteSampler(BaseSampler):
    """Base: turns "pick an index" into Optuna's sampler protocol.

    A pick depends on the seed, its trial number, and the trials before its batch: a search that is
    killed and resumed asks the same questions as an undisturbed one.
    """

    def __init__(self, candidates: Candidates, seed: int, batch_size: int) -> None:
        self.candidates = candidates
        self.seed = seed
        self.batch_size = batch_size

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All knobs, always."""
        return self.candidates.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of all knobs of the picked configuration."""
        history = self._history(study, trial)
        if history.unseen.any():
            return dict(self.candidates.configs[self.pick(study, trial, history)])
        return dict(self.candidates.configs[0])  # exhausted: the ledger stops asking

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Unreachable: every knob is part of the relative space."""
        raise AssertionError(f"{param_name} is not a knob of this study")

    @abstractmethod
    def pick(self, study: Study, trial: FrozenTrial, history: History) -> int:
        """Index of an unseen configuration."""

    def rng(self, trial: FrozenTrial) -> np.random.Generator:
        """Random numbers of this trial."""
        return np.random.default_rng([self.seed, trial.number])

    def _history(self, study: Study, trial: FrozenTrial) -> History:
        batch_start = trial.number - trial.number % self.batch_size
        unseen = np.ones(len(self.candidates), dtype=np.bool_)
        indices: list[int] = []
        values: list[float | None] = []
        batch: list[int] = []
        seeded = 0
        for other in study.get_trials(deepcopy=False):
            index = self.candidates.index(_params(other))
            if index is None or other.number >= trial.number:
                if index is not None and other.state is TrialState.WAITING:
                    unseen[index] = False  # enqueued, its turn will come
                continue
            unseen[index] = False
            if FOREIGN in other.user_attrs:
                continue
            seeded += "fixed_params" in other.system_attrs
            if other.number >= batch_start:
                batch.append(index)
            elif other.state is TrialState.COMPLETE:
                indices.append(index)
                values.append(other.value)
            elif other.state is TrialState.PRUNED:
                indices.append(index)
                values.append(None)
        return History(unseen, tuple(indices), tuple(values), tuple(batch), batch_start, seeded)


class ClassifierSampler(FiniteSampler):
    """Unseen configurations scored by a classifier of "among the best"."""

    def __init__(self, candidates: Candidates, seed: int, batch_size: int, trials: int) -> None:
        super().__init__(candidates, seed, batch_size)
        self._model = ClassifierModel(candidates, seed, trials)

    def pick(self, study: Study, trial: FrozenTrial, history: History) -> int:
        """See `ClassifierModel.pick`."""
        return self._model.pick(history, trial.number, self.rng(trial))


class BlendSampler(FiniteSampler):
    """Expected improvement under a forest and a Gaussian process."""

    def __init__(self, candidates: Candidates, seed: int, batch_size: int, trials: int) -> None:
        super().__init__(candidates, seed, batch_size)
        self._model = BlendModel(candidates, seed, trials)

    def pick(self, study: Study, trial: FrozenTrial, history: History) -> int:
        """See `BlendModel.pick`."""
        return self._model.pick(history, trial.number, self.rng(trial))


class ForestSampler(FiniteSampler):
    """Expected improvement under a forest of regression trees."""

    def __init__(self, candidates: Candidates, seed: int, batch_size: int, trials: int) -> None:
        super().__init__(candidates, seed, batch_size)
        self._model = ForestModel(candidates, seed, trials)

    def pick(self, study: Study, trial: FrozenTrial, history: History) -> int:
        """See `ForestModel.pick`."""
        return self._model.pick(history, trial.number, self.rng(trial))


class RepairedSampler(FiniteSampler):
    """One of Optuna's samplers, its proposal moved to the nearest unseen legal configuration."""

    def __init__(
        self,
        candidates: Candidates,
        seed: int,
        batch_size: int,
        make: Callable[[int], BaseSampler],
    ) -> None:
        super().__init__(candidates, seed, batch_size)
        self._make = make

    def pick(self, study: Study, trial: FrozenTrial, history: History) -> int:
        """Ask a sampler seeded for this trial, then repair."""
        inner = self._make(int(self.rng(trial).integers(2**31)))
        space = inner.infer_relative_search_space(study, trial)
        params = inner.sample_relative(study, trial, space)
        for name, distribution in self.candidates.distributions.items():
            if name not in params:
                params[name] = inner.sample_independent(study, trial, name, distribution)
        return self.candidates.nearest(params, history.unseen)


class RandomLegalSampler(FiniteSampler):
    """Uniform over the unseen legal configurations."""

    def pick(self, study: Study, trial: FrozenTrial, history: History) -> int:
        """Draw one."""
        return int(self.rng(trial).choice(np.flatnonzero(history.unseen)))


_OPTUNA: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=16),
    "gp": lambda seed: GPSampler(seed=seed),
    "nsga2": lambda seed: NSGAIISampler(seed=seed),
}


def make_sampler(
    name: str, candidates: Candidates, seed: int, batch_size: int, trials: int
) -> BaseSampler:
    """Build the sampler of that name for a search of `trials` trials.

    Raises:
        UnknownChoiceError: no such sampler.
    """
    if name == "blend":
        return BlendSampler(candidates, seed, batch_size, trials)
    if name == "forest":
        return ForestSampler(candidates, seed, batch_size, trials)
    if name == "classifier":
        return ClassifierSampler(candidates, seed, batch_size, trials)
    if name == "random":
        return RandomLegalSampler(candidates, seed, batch_size)
    if name not in _OPTUNA:
        raise UnknownChoiceError("sampler", name, SAMPLERS)
    make = _OPTUNA[name]

    def quietly(inner_seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return make(inner_seed)

    return RepairedSampler(candidates, seed, batch_size, quietly)


def _params(trial: FrozenTrial) -> dict[str, Any]:
    """Parameters of a trial, or those that it was enqueued with and has not taken up yet."""
    if trial.params:
        return trial.params
    fixed: dict[str, Any] = trial.system_attrs.get("fixed_params", {})
    return fixed
