"""The default sampler on made-up landscapes: it has to find what random search misses."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest

from autotune.search.candidates import Candidates
from autotune.search.classifier import ClassifierModel
from autotune.search.history import History
from autotune.space import Config, Constraint, Knob, SearchSpace

SPACE = SearchSpace(
    (
        Knob("tile_m", (16, 32, 64, 128, 256), "rows"),
        Knob("tile_n", (16, 32, 64, 128, 256), "columns"),
        Knob("warps", (1, 2, 4, 8), "warps"),
        Knob("stages", (1, 2, 3, 4, 5), "stages"),
        Knob("mode", ("a", "b", "c"), "a name", ordered=False),
    ),
    (Constraint("too large", ("tile_m", "tile_n"), lambda m, n: m * n <= 128 * 128),),
)
TRIALS = 48
SEEDS = range(4)

Landscape = Callable[[Config], float | None]


def planted(config: Config) -> float | None:
    """One optimum of 1.0 where all knobs agree; a tenth of the space fails."""
    if config.number("tile_m") == 256 and config.number("stages") >= 3:
        return None
    steps = SPACE.steps_between(
        config, {"tile_m": 64, "tile_n": 128, "warps": 4, "stages": 3, "mode": "b"}
    )
    return float(1.0 + 0.35 * steps)


def best_of(picks: list[int], landscape: Landscape) -> float:
    values = [landscape(SPACE.legal[index]) for index in picks]
    return min(value for value in values if value is not None)


def search(candidates: Candidates, landscape: Landscape, seed: int, trials: int) -> list[int]:
    """Batches of eight through the model, as the ledger drives it."""
    model = ClassifierModel(candidates, seed, trials)
    picks: list[int] = []
    values: list[float | None] = []
    while len(picks) < trials:
        start, batch = len(picks), list[int]()
        for number in range(start, min(start + 8, trials)):
            unseen = np.ones(len(candidates), dtype=np.bool_)
            unseen[picks + batch] = False
            history = History(unseen, tuple(picks), tuple(values), tuple(batch), start)
            batch.append(model.pick(history, number, np.random.default_rng([seed, number])))
        picks += batch
        values += [landscape(SPACE.legal[index]) for index in batch]
    return picks


def random_search(seed: int, trials: int) -> list[int]:
    rng = np.random.default_rng(seed)
    return [int(index) for index in rng.permutation(len(SPACE.legal))[:trials]]


def test_it_finds_a_planted_optimum_that_random_search_misses() -> None:
    candidates = Candidates(SPACE.knobs, SPACE.legal)
    assert len(candidates) > 20 * TRIALS
    ours = [best_of(search(candidates, planted, seed, TRIALS), planted) for seed in SEEDS]
    theirs = [best_of(random_search(seed, TRIALS), planted) for seed in SEEDS]
    # The optimum is 1.0; a step costs 0.35.
    assert statistics.mean(ours) <= 1.25
    assert statistics.mean(ours) <= statistics.mean(theirs) - 0.35


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_a_prior_helps_and_a_wrong_one_does_no_lasting_harm(noise: float) -> None:
    rng = np.random.default_rng(0)
    guesses = [(planted(config) or 5.0) * math.exp(noise * rng.normal()) for config in SPACE.legal]
    candidates = Candidates(SPACE.knobs, SPACE.legal, guesses)
    found = [best_of(search(candidates, planted, seed, TRIALS), planted) for seed in SEEDS]
    assert statistics.mean(found) <= (1.1 if noise < 1 else 1.4)


def test_picks_are_unseen_and_repeat_per_seed() -> None:
    candidates = Candidates(SPACE.knobs, SPACE.legal)
    picks = search(candidates, planted, 3, TRIALS)
    assert len(set(picks)) == TRIALS
    assert search(candidates, planted, 3, TRIALS) == picks
    assert search(candidates, planted, 4, TRIALS) != picks


@pytest.mark.parametrize("landscape", [lambda config: None, lambda config: 1.0])
def test_landscapes_without_any_slope_are_searched_to_the_end(landscape: Landscape) -> None:
    candidates = Candidates(SPACE.knobs, SPACE.legal)
    assert len(set(search(candidates, landscape, 0, TRIALS))) == TRIALS


def test_the_last_trials_are_neighbours_of_the_best() -> None:
    candidates = Candidates(SPACE.knobs, SPACE.legal)
    picks = search(candidates, planted, 0, TRIALS)
    last = picks[-8:]
    best = min(picks[:-8], key=lambda index: planted(SPACE.legal[index]) or math.inf)
    near = set(candidates.neighbours(best)) - set(picks[:-8])
    assert near.issubset(last) or set(last) <= near
