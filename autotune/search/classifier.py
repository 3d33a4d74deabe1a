"""Which unseen configurations are likely among the best: a classifier, not a regression.

Telling "in the top fifth" from "not" learns from failures too, and beats regression surrogates at
small budgets (ablation of Helion's autotuner, 2026; replays of recorded GPU spaces).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier

from autotune.search.candidates import Array, Candidates

_STARTUP_TRIALS = 16
_TOP_SHARE = 0.2
_RANDOM_SHARE = 0.1
"""Of the guided trials, picked uniformly: the model never closes a region for good."""
_DESCENT_SHARE = 0.2
"""Of all trials, the last: one-step neighbours of the best."""


@dataclass(frozen=True, slots=True)
class History:
    """What a pick may look at."""

    unseen: NDArray[np.bool_]
    indices: tuple[int, ...]
    """Configurations judged before this batch, in order."""
    values: tuple[float | None, ...]
    """Their objective, None for failures; smaller is better."""
    batch: tuple[int, ...]
    """Configurations already picked in this batch."""
    batch_start: int

    @property
    def best(self) -> int | None:
        """Index of the best configuration so far."""
        judged = [(v, i) for i, v in zip(self.indices, self.values, strict=True) if v is not None]
        return min(judged)[1] if judged else None


class ClassifierModel:
    """Start-up by prior and spread, then classifier scores, then a descent around the best."""

    def __init__(self, candidates: Candidates, seed: int, trials: int) -> None:
        self._candidates = candidates
        self._seed = seed
        self._descent_from = trials - int(trials * _DESCENT_SHARE)
        self._startup = min(_STARTUP_TRIALS, max(4, trials // 3))
        self._scored_at: int | None = None
        self._scores: Array | None = None

    def pick(self, history: History, number: int, rng: np.random.Generator) -> int:
        """Index of an unseen configuration for trial `number`."""
        unseen = np.flatnonzero(history.unseen)
        if len(history.indices) < self._startup or history.best is None:
            return self._spread(unseen, history, number, rng)
        scores = self._score(history)
        if number >= self._descent_from:
            near = [i for i in self._candidates.neighbours(history.best) if history.unseen[i]]
            if near:
                return near[int(np.argmax(scores[near]))]
        elif rng.random() < _RANDOM_SHARE:
            return int(rng.choice(unseen))
        # Do not spend a batch on near-twins: a pick in it dims its neighbourhood.
        score = scores[unseen] + 1e-6 * rng.random(len(unseen))
        for picked in history.batch:
            gap = np.abs(self._candidates.positions[unseen] - self._candidates.positions[picked])
            score = score * (1.0 - 0.5 * np.exp(-gap.sum(axis=1)))
        return int(unseen[np.argmax(score)])

    def _spread(
        self, unseen: NDArray[np.intp], history: History, number: int, rng: np.random.Generator
    ) -> int:
        """Alternate between the prior's favourites and random picks, away from what was taken."""
        prior = self._candidates.prior
        if prior is not None and number % 2 == 0:
            order = unseen[np.argsort(prior[unseen], kind="stable")]
            drawn = order[: max(8, len(order) // 50)]
        else:
            drawn = rng.choice(unseen, size=min(len(unseen), 8), replace=False)
        taken = list(history.indices + history.batch)
        if not taken:
            return int(drawn[0])
        positions = self._candidates.positions
        gaps = np.abs(positions[drawn][:, None, :] - positions[taken][None, :, :]).sum(axis=2)
        return int(drawn[np.argmax(gaps.min(axis=1))])

    def _score(self, history: History) -> Array:
        """P(among the best) of every configuration; one fit serves a batch."""
        if self._scores is not None and self._scored_at == history.batch_start:
            return self._scores
        known = [value for value in history.values if value is not None]
        limit = sorted(known)[max(0, int(np.ceil(len(known) * _TOP_SHARE)) - 1)]
        labels = np.array([v is not None and v <= limit for v in history.values])
        features = self._candidates.features
        if labels.all():
            scores = np.ones(len(self._candidates))
        else:
            forest = ExtraTreesClassifier(
                n_estimators=100,
                class_weight="balanced",
                min_samples_leaf=1,
                random_state=self._seed + history.batch_start,
            )
            forest.fit(features[list(history.indices)], labels)
            scores = forest.predict_proba(features)[:, 1]
        self._scored_at, self._scores = history.batch_start, scores
        return scores
