"""Which unseen configurations are likely among the best: a classifier, not a regression.

Telling "in the top fifth" from "not" learns from failures too, and beats regression surrogates at
small budgets (ablation of Helion's autotuner, 2026; replays of recorded GPU spaces).
"""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier

from autotune.search.candidates import Array, Candidates
from autotune.search.history import History
from autotune.search.startup import spread

_STARTUP_TRIALS = 16
_STARTUP_DRAWS = 8
_TOP_SHARE = 0.2
_RANDOM_SHARE = 0.1
"""Of the guided trials, picked uniformly: the model never closes a region for good."""
_DESCENT_SHARE = 0.2
"""Of all trials, the last: one-step neighbours of the best."""


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
            return spread(self._candidates, history, number, rng, _STARTUP_DRAWS)
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
