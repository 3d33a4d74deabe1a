"""Two of our models on made-up landscapes: they have to find what random search misses."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest

from autotune.config import Config
from autotune.knob import Constraint, Knob
from autotune.search.candidates import Candidates
from autotune.search.classifier import ClassifierModel
from autotune.search.forest import ForestModel
from autotune.search.history import History
from autotune.space import SearchSpace

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
Model = type[ClassifierModel] | type[ForestModel]


@pytest.fixture(params=[ClassifierModel, ForestModel])
def model(request: pytest.FixtureRequest) -> Model:
    made: Model = request.param
    return made


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


def search(
    kind: Model, candidates: Candidates, landscape: Landscape, seed: int, trials: int
) -> list[int]:
    """Batches of eight through a model, as the ledger drives it."""
    model = kind(candidates, seed, trials)
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


def test_it_finds_a_planted_optimum_that_random_search_misses(model: Model) -> None:
    candidates = Candidates(SPACE.knobs, SPACE.legal)
    assert len(candidates) > 20 * TRIALS
    ours = [best_of(search(model, candidates, planted, seed, TRIALS), planted) for seed in SEEDS]
    theirs = [best_of(random_search(seed, TRIALS), planted) for seed in SEEDS]
    # The optimum is 1.0; a step costs 0.35.
    assert statistics.mean(ours) <= 1.25
    assert statistics.mean(ours) <= statistics.mean(theirs) - 0.35


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_a_prior_helps_and_a_wrong_one_does_no_lasting_harm(model: Model, noise: float) -> None:
    rng = np.random.default_rng(0)
    guesses = [(planted(config) or 5.0) * math.exp(noise * rng.normal()) for config in SPACE.legal]
    candidates = Candidates(SPACE.knobs, SPACE.legal, guesses)
    found = [best_of(search(model, candidates, planted, seed, TRIALS), planted) for seed in SEEDS]
    assert statistics.mean(found) <= (1.1 if noise < 1 else 1.4)


def test_picks_are_unseen_and_repeat_per_seed(model: Model) -> None:
    candidates = Candidates(SPACE.knobs, SPACE.legal)
    picks = search(model, candidates, planted, 3, TRIALS)
    assert len(set(picks)) == TRIALS
    assert search(model, candidates, planted, 3, TRIALS) == picks
    assert search(model, candidates, planted, 4, TRIALS) != picks


@pytest.mark.parametrize("landscape", [lambda config: None, lambda config: 1.0])
def test_landscapes_without_any_slope_are_searched_to_the_end(
    model: Model, landscape: Landscape
) -> None:
    candidates = Candidates(SPACE.knobs, SPACE.legal)
    assert len(set(search(model, candidates, landscape, 0, TRIALS))) == TRIALS


def test_the_last_trials_of_the_classifier_are_neighbours_of_the_best() -> None:
    candidates = Candidates(SPACE.knobs, SPACE.legal)
    picks = search(ClassifierModel, candidates, planted, 0, TRIALS)
    last = picks[-8:]
    best = min(picks[:-8], key=lambda index: planted(SPACE.legal[index]) or math.inf)
    near = set(candidates.neighbours(best)) - set(picks[:-8])
    assert near.issubset(last) or set(last) <= near


def test_a_failed_region_is_left() -> None:
    """Two thirds of this space fail: the forest must not keep asking for them."""

    def one_mode(config: Config) -> float | None:
        return None if config["mode"] != "b" else planted(config)

    candidates = Candidates(SPACE.knobs, SPACE.legal)
    picks = search(ForestModel, candidates, one_mode, 0, TRIALS)
    failed = [one_mode(SPACE.legal[index]) is None for index in picks]
    assert sum(failed[24:]) <= 6  # two thirds of random picks would fail: 16
    assert best_of(picks, one_mode) <= 1.35


def test_descriptors_name_products_and_roundness() -> None:
    space = SearchSpace(
        (Knob("x", (32, 48, 64), ""), Knob("y", (1, 2, 4), ""), Knob("one", (5,), "")),
    )
    table = Candidates(space.knobs, space.legal).descriptors
    assert table.dtype == np.float32
    assert (table != table[0]).any(axis=0).all(), "no column is constant"
    columns = {tuple(np.round(column, 4)) for column in table.T}
    for wanted in (
        [math.log2(c.number("x") * c.number("y")) for c in space.legal],
        [math.log2(c.number("x") / c.number("y")) for c in space.legal],
        [{32: 5.0, 48: 4.0, 64: 6.0}[c.number("x")] for c in space.legal],
        [float(c["x"] == 48) for c in space.legal],
    ):
        assert tuple(np.round(np.array(wanted, dtype=np.float32), 4)) in columns
