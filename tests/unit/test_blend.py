"""The default sampler of measured searches: picks, batches, warm starts, and never below chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autotune.cli import main
from autotune.config import Config
from autotune.effort import DEFAULT_SAMPLER, EFFORTS, PREDICTING_SAMPLER
from autotune.knob import Knob
from autotune.recorded import RecordedSpace
from autotune.records import Status
from autotune.replay import ReplayOptions, replay, search_once
from autotune.search.blend import BlendModel
from autotune.search.candidates import Candidates
from autotune.search.history import History
from autotune.search.startup import spread
from autotune.space import SearchSpace

SPACE = SearchSpace(
    (
        Knob("tile", (16, 32, 48, 64, 96, 128, 192, 256), ""),
        Knob("rows", (1, 2, 4, 8), ""),
        Knob("warps", (1, 2, 4, 8), ""),
        Knob("mode", ("a", "b", "c"), "", ordered=False),
    ),
)
CANDIDATES = Candidates(SPACE.knobs, SPACE.legal)


def judged(count: int, batch: tuple[int, ...] = (), seeded: int = 0) -> History:
    """The first `count` configurations of a shuffled list are known; fast where tiles are large."""
    order = np.random.default_rng(3).permutation(len(CANDIDATES))
    indices = tuple(int(i) for i in order[:count])
    values = tuple(1000.0 / CANDIDATES.configs[i].number("tile") for i in indices)
    unseen = np.ones(len(CANDIDATES), dtype=np.bool_)
    unseen[[*indices, *batch]] = False
    return History(unseen, indices, values, batch, count, seeded)


def pick(history: History, model: BlendModel | None = None) -> int:
    model = model or BlendModel(CANDIDATES, seed=0, trials=64)
    number = history.batch_start + len(history.batch)
    return model.pick(history, number, np.random.default_rng([0, number]))


def test_it_goes_where_it_is_fast() -> None:
    assert CANDIDATES.configs[pick(judged(30))]["tile"] == 256


def test_a_pick_does_not_depend_on_what_the_process_has_done_before() -> None:
    model = BlendModel(CANDIDATES, seed=0, trials=64)
    batch: tuple[int, ...] = ()
    for _ in range(4):
        batch += (pick(judged(24, batch), model),)
        fresh = pick(judged(24, batch[:-1]))
        assert fresh == batch[-1], "a worker that takes over asks the same"
    assert len(set(batch)) == 4


def test_what_was_chosen_before_is_no_start_up() -> None:
    """Eight trials of its own come first, spread, whatever it was given."""
    rng = np.random.default_rng([0, 11])
    start = spread(CANDIDATES, judged(11), 11, rng, 16)
    assert pick(judged(11, seeded=4)) == start
    assert pick(judged(11, seeded=3)) != start


def test_measured_searches_use_it_and_predictions_stay_as_committed() -> None:
    assert DEFAULT_SAMPLER == "blend"
    assert {name: effort.sampler for name, effort in EFFORTS.items()} == {
        "predict": PREDICTING_SAMPLER,
        "quick": "blend",
        "full": "blend",
        "exhaustive": PREDICTING_SAMPLER,
    }


def test_the_help_says_which_sampler_is_whose(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "default blend, with --effort predict classifier" in told


def test_another_gpus_best_are_tried_and_do_not_lead_the_search() -> None:
    """Their times are good here, and all around them is worse than elsewhere."""
    space = landscape("interacts")
    candidates = Candidates(space.searched, space.configs)
    options = ReplayOptions(evals=24, seeds=1)
    trap = [c for c in space.configs if c["mode"] == "a" and c["tile"] == 64][:4]
    asked = search_once(space, candidates, "blend", 0, options, trap)
    assert [candidates.configs[index] for index in asked[:4]] == trap
    assert len(set(asked)) == 24
    fast = replace(
        space,
        times_us=tuple(
            1.0 if c in trap else t for c, t in zip(space.configs, space.times_us, strict=True)
        ),
    )
    assert search_once(fast, candidates, "blend", 0, options, trap) == asked, (
        "their times were looked at"
    )


def landscape(kind: str) -> RecordedSpace:
    """A space in which knobs interact, or in which there is nothing to learn."""
    rng = np.random.default_rng(7)
    times: list[float | None] = []
    for config in SPACE.legal:
        threads = config.number("tile") * config.number("rows")
        if kind == "noise":
            times.append(float(10.0 * np.exp(rng.normal())))
        elif threads > 1024:
            times.append(None)
        else:
            odd = 2.0 if config.number("tile") % 32 else 1.0
            far = abs(np.log2(threads / 256)) + abs(np.log2(threads / config.number("warps") / 64))
            times.append(float(10.0 * odd * (1.0 + far) * (1.5 if config["mode"] != "b" else 1.0)))
    statuses = tuple(Status.OK if time else Status.SPILLS for time in times)
    configs = tuple(Config(dict(config)) for config in SPACE.legal)
    return RecordedSpace(
        kind, "a100", "toy", {}, SPACE.knobs, configs, tuple(times), statuses, "made up"
    )


@pytest.mark.parametrize(("batch_size", "least"), [(2, 0.95), (8, 0.9)])
def test_it_finds_what_interacts_far_sooner_than_chance(batch_size: int, least: float) -> None:
    space = landscape("interacts")
    ours, chance = (
        replay(space, name, ReplayOptions(evals=32, seeds=2, batch_size=batch_size)).best[:, -1]
        for name in ("blend", "random")
    )
    assert ours.mean() >= least
    assert ours.mean() >= chance.mean() + 0.1


def test_it_is_no_worse_than_chance_where_nothing_can_be_learned() -> None:
    space = landscape("noise")
    options = ReplayOptions(evals=24, seeds=5)
    ours, chance = (replay(space, name, options).best[:, -1] for name in ("blend", "random"))
    error = np.sqrt(ours.var() / len(ours) + chance.var() / len(chance))
    assert ours.mean() >= chance.mean() - 3 * error


def test_a_real_gpu_in_few_trials(recorded: Path) -> None:
    """A convolution on an RTX A4000: chance gives 0.75 after 40 evaluations."""
    from autotune.recorded_files import read_space

    found = replay(read_space(recorded), "blend", ReplayOptions(evals=40, seeds=2))
    assert found.best[:, -1].mean() >= 0.78


@pytest.fixture
def recorded() -> Path:
    return Path(__file__).parents[1] / "data" / "spaces" / "conv_a4000.space.json.gz"
