"""Finalists timed on a made-up device: who wins, who is kept out, and when the default stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_up_device import MadeUpDevice
from toy_kernel import FakeBuilder, ToyKernel, ToyProblem, sound, write_templates

from autotune.arch import lookup
from autotune.cell import Cell
from autotune.conclusion import conclude
from autotune.judge import DuplicateFinder
from autotune.measure import measure
from autotune.race import speedup, timing
from autotune.records import Evaluation, Provenance, Selection
from autotune.select import select
from autotune.study import SearchOptions

FINALISTS = 6


@pytest.fixture
def cell() -> Cell:
    return Cell(ToyKernel(), lookup("a100"), ToyProblem())


@pytest.fixture
def evaluations(cell: Cell) -> list[Evaluation]:
    finder = DuplicateFinder()
    return [finder.screen(sound(cell.representative(binary))) for binary in cell.binaries]


def run(cell: Cell, evaluations: list[Evaluation], device: MadeUpDevice) -> list[Selection]:
    return measure(cell, evaluations, select(cell, evaluations), device, FINALISTS)


def test_the_fastest_wins_and_says_by_how_much(cell: Cell, evaluations: list[Evaluation]) -> None:
    device = MadeUpDevice(lambda c: 50.0 if c == cell.defaults[cell.points[0]] else 40.0)
    for selection, point in zip(run(cell, evaluations, device), cell.points, strict=True):
        assert selection.provenance is Provenance.MEASURED
        assert selection.config != cell.defaults[point]
        assert selection.time_us == pytest.approx(40.0, rel=0.02)
        assert selection.default_us == pytest.approx(50.0, rel=0.02)
        assert selection.error_factor is None
        assert selection.timing is not None
        assert selection.timing.samples == 40
        assert selection.timing.conditions is not None
        assert selection.timing.conditions.mode == "graph"
        assert selection.timing.conditions.confirmed_us == pytest.approx(40.0, rel=0.02)
        assert "1.2" in selection.reason
        assert selection.reports == sound(selection.config).reports


def test_every_point_races_the_default_and_its_own_favourites(
    cell: Cell, evaluations: list[Evaluation]
) -> None:
    device = MadeUpDevice(lambda c: 10.0)
    run(cell, evaluations, device)
    assert [point for point, _ in device.raced] == list(cell.points)
    for point, configs in device.raced:
        assert cell.defaults[point] in configs
        assert FINALISTS <= len(configs) <= FINALISTS + 1
        assert len(set(configs)) == len(configs)
    assert len(device.checked) == len(set(device.checked)), "a binary is checked once"


def test_a_default_that_no_trial_tried_still_races(cell: Cell, tmp_path: Path) -> None:
    defaults = set(cell.defaults.values())
    known = {cell.space.binary_of(config) for config in defaults}
    other = next(binary for binary in cell.binaries if binary not in known)
    builder = FakeBuilder(cell.arch, write_templates(tmp_path))
    device = MadeUpDevice(lambda config: 1.0 if config in defaults else 2.0)
    tried = [sound(cell.representative(other))]
    result = conclude(cell, builder, SearchOptions(effort="full"), tried, "trials", device)
    assert {cell.space.binary_of(config) for config in builder.asked} == known
    for point, selection in zip(cell.points, result.selections, strict=True):
        assert selection.config == cell.space.stored(cell.defaults[point])
        assert selection.provenance is Provenance.MEASURED
        assert selection.reports


def test_noise_does_not_dethrone_the_default(cell: Cell, evaluations: list[Evaluation]) -> None:
    device = MadeUpDevice(lambda c: 10.0)
    for selection, point in zip(run(cell, evaluations, device), cell.points, strict=True):
        assert selection.config == cell.defaults[point]
        assert "default" in selection.reason


def test_a_gain_below_one_percent_is_not_worth_a_change(
    cell: Cell, evaluations: list[Evaluation]
) -> None:
    class Exact(MadeUpDevice):
        def noise(self) -> np.typing.NDArray[np.float64]:
            return np.zeros(40)

    default = cell.defaults[cell.points[0]]
    kept = run(cell, evaluations, Exact(lambda c: 100.0 if c == default else 99.2))
    assert {s.config for s in kept} == {default}
    changed = run(cell, evaluations, Exact(lambda c: 100.0 if c == default else 98.0))
    assert default not in {s.config for s in changed}


def test_what_is_wrong_is_not_timed(cell: Cell, evaluations: list[Evaluation]) -> None:
    default = cell.defaults[cell.points[0]]
    device = MadeUpDevice(lambda c: 10.0, wrong=lambda c: c == default)
    for selection in run(cell, evaluations, device):
        assert selection.config != default
        assert selection.default_us is None
    assert all(default not in configs for _, configs in device.raced)


def test_a_failed_race_leaves_the_prediction(cell: Cell, evaluations: list[Evaluation]) -> None:
    device = MadeUpDevice(lambda c: 10.0, broken=True)
    assert run(cell, evaluations, device) == select(cell, evaluations)


def test_the_winner_meets_the_default_again_in_a_fresh_process(
    cell: Cell, evaluations: list[Evaluation]
) -> None:
    default = cell.defaults[cell.points[0]]
    device = MadeUpDevice(lambda c: 50.0 if c == default else 40.0)
    for selection, (point, configs) in zip(
        run(cell, evaluations, device), device.repeated, strict=True
    ):
        assert configs == (cell.defaults[point], selection.config)


def test_a_win_that_does_not_repeat_is_none(cell: Cell, evaluations: list[Evaluation]) -> None:
    default = cell.defaults[cell.points[0]]
    device = MadeUpDevice(lambda c: 50.0 if c == default else 40.0)
    device.later_us = lambda config: 50.0
    for selection in run(cell, evaluations, device):
        assert selection.config == default
        assert selection.gain == 1.0
        assert "in a fresh process" in selection.reason


def test_speedup_is_paired_and_its_interval_covers() -> None:
    rng = np.random.default_rng(0)
    drift = 1 + 0.2 * rng.random(100)  # hits both alike
    slow = list(20.0 * drift * (1 + 0.005 * rng.standard_normal(100)))
    fast = list(10.0 * drift * (1 + 0.005 * rng.standard_normal(100)))
    gain = speedup(slow, fast)
    assert gain.low < 2.0 < gain.high
    assert gain.high - gain.low < 0.02
    with pytest.raises(ValueError, match="not taken in turns"):
        speedup(slow, fast[:-1])


def test_timing_is_median_and_quartiles() -> None:
    found = timing([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (found.q1_us, found.median_us, found.q3_us, found.samples) == (2.0, 3.0, 4.0, 5)
