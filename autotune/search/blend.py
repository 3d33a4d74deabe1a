"""Which unseen configurations promise an improvement, by two models that err differently.

A forest finds out which products and ratios of knobs matter and is blind between its splits; a
Gaussian process is smooth in every knob and knows where it knows nothing. Their blend (the mean and
the variance of the mixture) goes into expected improvement (Jones, Schonlau, Welch 1998). Which of
the two is right differs from space to space; `docs/decisions` has what was tried.

Configurations of the batch in flight are believed to turn out as predicted (Ginsbourger, Le Riche,
Carraro 2010), so that a batch is not spent on near-twins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autotune.search.candidates import Array, Candidates
from autotune.search.forest import expected_improvement, grow_forest, normal_scores, ranks_of
from autotune.search.gaussian import GaussianProcess
from autotune.search.history import History
from autotune.search.startup import spread

_STARTUP_TRIALS = 8
_STARTUP_DRAWS = 16
_MOST_SCORED = 4096
"""Unseen configurations scored at once, besides the neighbours of the best."""
_MOST_LEARNED = 256
"""Trials that the Gaussian process learns from: the best half of them, and the latest."""
_ELITE = 5


class BlendModel:
    """Start-up by prior and spread, then expected improvement under the two models."""

    def __init__(self, candidates: Candidates, seed: int, trials: int) -> None:
        self._candidates = candidates
        self._seed = seed
        self._startup = min(_STARTUP_TRIALS, max(4, trials // 4))
        points = candidates.features
        points = points[:, (points != points[0]).any(axis=0)]
        low = points.min(axis=0)
        self._points = np.ascontiguousarray((points - low) / (points.max(axis=0) - low))
        self._fitted: tuple[int, GaussianProcess, NDArray[np.intp]] | None = None

    def pick(self, history: History, number: int, rng: np.random.Generator) -> int:
        """Index of an unseen configuration for trial `number`.

        What was chosen before the search is no substitute for looking around: it is no start-up.
        """
        own = len(history.indices) + len(history.batch) - history.seeded
        if own < self._startup or history.best is None:
            return spread(self._candidates, history, number, rng, _STARTUP_DRAWS)
        judged = np.array(history.indices)
        targets = normal_scores(ranks_of(history))
        if self._fitted is None or self._fitted[0] != history.batch_start:
            process = GaussianProcess(*self._lesson(judged, targets))
            self._fitted = (history.batch_start, process, self._pool(history, judged, targets))
        _, process, pool = self._fitted
        if history.batch:
            process.condition(*self._lesson(judged, targets))
            flying = np.array(history.batch)
            believed, _ = self._predict(process, judged, targets, flying)
            judged, targets = np.append(judged, flying), np.append(targets, believed)
        process.condition(*self._lesson(judged, targets))
        asked = pool[history.unseen[pool]]
        if not len(asked):
            return int(rng.choice(np.flatnonzero(history.unseen)))
        mean, deviation = self._predict(process, judged, targets, asked)
        best = float(targets[: len(history.indices)].min())
        return int(asked[np.argmax(expected_improvement(mean, deviation, best))])

    def _predict(
        self,
        process: GaussianProcess,
        judged: NDArray[np.intp],
        targets: Array,
        asked: NDArray[np.intp],
    ) -> tuple[Array, Array]:
        """Mean and standard deviation of the blend at `asked`."""
        rng = np.random.default_rng([self._seed, len(judged)])
        guesses = grow_forest(self._candidates.descriptors, judged, targets, asked, rng)
        forest_mean, forest_variance = guesses.mean(axis=0), guesses.var(axis=0)
        mean, deviation = process.predict(self._points[asked])
        variance = (deviation**2 + forest_variance) / 2 + (mean - forest_mean) ** 2 / 4
        return (mean + forest_mean) / 2, np.sqrt(variance)

    def _lesson(self, judged: NDArray[np.intp], targets: Array) -> tuple[Array, Array]:
        """Points and targets of the trials that the Gaussian process learns from."""
        places = np.arange(len(targets))
        if len(targets) > _MOST_LEARNED:
            half = _MOST_LEARNED // 2
            best = np.argsort(targets, kind="stable")[:half]
            places = np.union1d(best, places[-half:])
        return self._points[judged[places]], targets[places]

    def _pool(self, history: History, judged: NDArray[np.intp], targets: Array) -> NDArray[np.intp]:
        """Unseen configurations to score: all, or a sample and what is near the best."""
        unseen = np.flatnonzero(history.unseen)
        if len(unseen) <= _MOST_SCORED:
            return unseen
        rng = np.random.default_rng([self._seed, history.batch_start, len(judged)])
        elite = judged[np.argsort(targets, kind="stable")[:_ELITE]]
        near = np.concatenate([self._candidates.similar(int(index)) for index in elite])
        drawn = rng.choice(unseen, size=_MOST_SCORED, replace=False)
        return np.unique(np.concatenate([near[history.unseen[near]], drawn]))
