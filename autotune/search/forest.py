"""Which unseen configurations promise an improvement: a forest of random regression trees.

Sequential model-based search after SMAC (Hutter, Hoos, Leyton-Brown 2011) with extremely randomised
trees (Geurts, Ernst, Wehenkel 2006): what the trees disagree on is the uncertainty, and expected
improvement weighs it against the mean. The trees split on products, ratios and roundness of knobs,
too (`Candidates.descriptors`), which is where most of the gain over plain knobs comes from.
"""

from __future__ import annotations

import numpy as np
import sklearn
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from sklearn.tree import ExtraTreeRegressor

from autotune.search.candidates import Array, Candidates
from autotune.search.history import History
from autotune.search.startup import spread

_STARTUP_TRIALS = 8
_STARTUP_DRAWS = 16
_TREES = 32
_FEATURE_SHARE = 0.3
_ATTENTION = 3.0
"""The best trial weighs e^3 times the worst: the trees should tell good from very good, and not
spend their splits on telling bad from hopeless."""
_MOST_SCORED = 4096
"""Unseen configurations scored at once, besides the neighbours of the best."""
_ELITE = 5


class ForestModel:
    """Start-up by prior and spread, then expected improvement under a forest."""

    def __init__(self, candidates: Candidates, seed: int, trials: int) -> None:
        self._candidates = candidates
        self._seed = seed
        self._startup = min(_STARTUP_TRIALS, max(4, trials // 3))
        self._scored_at: int | None = None
        self._pool: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        self._gain: Array = np.zeros(0)

    def pick(self, history: History, number: int, rng: np.random.Generator) -> int:
        """Index of an unseen configuration for trial `number`."""
        if len(history.indices) + len(history.batch) < self._startup or history.best is None:
            return spread(self._candidates, history, number, rng, _STARTUP_DRAWS)
        if self._scored_at != history.batch_start:
            self._score(history)
        open_ = history.unseen[self._pool]
        if not open_.any():
            return int(rng.choice(np.flatnonzero(history.unseen)))
        gain = np.where(open_, self._gain, -1.0)
        # Do not spend a batch on near-twins: a pick in it dims its neighbourhood.
        for picked in history.batch:
            gap = np.abs(
                self._candidates.positions[self._pool] - self._candidates.positions[picked]
            )
            gain = gain * np.where(gain > 0, 1.0 - 0.5 * np.exp(-gap.sum(axis=1)), 1.0)
        return int(self._pool[np.argmax(gain)])

    def _score(self, history: History) -> None:
        """Expected improvement of a pool of unseen configurations; one fit serves a batch."""
        rng = np.random.default_rng([self._seed, history.batch_start, len(history.indices)])
        judged = np.array(history.indices)
        target = normal_scores(ranks_of(history))
        unseen = np.flatnonzero(history.unseen)
        if len(unseen) > _MOST_SCORED:
            order = judged[np.argsort(target, kind="stable")]
            near = np.concatenate([self._candidates.similar(int(i)) for i in order[:_ELITE]])
            drawn = rng.choice(unseen, size=_MOST_SCORED, replace=False)
            unseen = np.unique(np.concatenate([near[history.unseen[near]], drawn]))
        guesses = grow_forest(self._candidates.descriptors, judged, target, unseen, rng)
        mean, deviation = guesses.mean(axis=0), guesses.std(axis=0)
        self._scored_at, self._pool = history.batch_start, unseen
        self._gain = expected_improvement(mean, deviation, float(target.min()))


def grow_forest(
    descriptors: NDArray[np.float32],
    told: NDArray[np.intp],
    target: Array,
    asked: NDArray[np.intp],
    rng: np.random.Generator,
) -> Array:
    """Grow trees on the rows `told` of `descriptors`; returns their guesses [trees, asked]."""
    ranks = np.argsort(np.argsort(target, kind="stable"), kind="stable")
    weights = np.exp(-_ATTENTION * ranks / len(target))
    known, unknown = descriptors[told], descriptors[asked]
    guesses = np.empty((_TREES, len(asked)))
    # Checking 32 times what is known to be sound takes longer than growing the trees.
    with sklearn.config_context(skip_parameter_validation=True, assume_finite=True):
        for number in range(_TREES):
            tree = ExtraTreeRegressor(
                max_features=_FEATURE_SHARE, random_state=int(rng.integers(2**31))
            )
            tree.fit(known, target, sample_weight=weights, check_input=False)
            guesses[number] = tree.predict(unknown, check_input=False)
    return guesses


def ranks_of(history: History) -> NDArray[np.intp]:
    """Place of each judged configuration, the best 0; failures share the last."""
    order = np.array([np.inf if value is None else value for value in history.values])
    ranks = np.argsort(np.argsort(order, kind="stable"), kind="stable")
    ranks[np.isinf(order)] = len(order) - 1
    return ranks


def normal_scores(ranks: NDArray[np.intp]) -> Array:
    """Normal scores: how far apart bad times are says nothing about the good ones."""
    scores = ndtri((ranks + 1.0) / (len(ranks) + 1.0))
    return np.asarray(scores / scores.std(), dtype=np.float64)


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """How far below `best` normal variables fall on average; never negative."""
    spread = deviation + 1e-6
    z = (best - mean) / spread
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    gain = (best - mean) * ndtr(z) + spread * density
    return np.asarray(np.maximum(gain, 0.0), dtype=np.float64)
