"""Warm starts: nearest first, legal only, few, unlike each other; what a run makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from made_up_device import MadeUpDevice
from own_folders import Folders
from record_cases import sha
from toy_kernel import FakeBuilder, ToyKernel, ToyProblem, sound, write_templates

from autotune.arch import lookup
from autotune.cell import Cell
from autotune.cli import main
from autotune.config import Config
from autotune.deadline import Deadline
from autotune.kernels import KERNELS
from autotune.objective import OBJECTIVES
from autotune.progress import Silent
from autotune.records import Environment, Provenance, Selection, Timing
from autotune.results import CellResult, ResultsStore
from autotune.study import SearchOptions
from autotune.tune import tune
from autotune.warm_starts import MOST, Elsewhere

NARROW, WIDE = ToyProblem(), ToyProblem(width=128)
A100 = lookup("a100")
OPTIONS = SearchOptions(effort="quick", trials=16, sampler="random")


def config(tile: int, mode: str = "b", num_warps: int = 1, num_stages: int = 2) -> Config:
    return Config(
        {"tile": tile, "mode": mode, "num_warps": num_warps, "num_stages": num_stages, "splits": 2}
    )


def save(
    folder: Path,
    gpu: str,
    configs: Sequence[Config],
    problem: ToyProblem = NARROW,
    provenance: Provenance = Provenance.MEASURED,
) -> None:
    """One cell of a GPU, a configuration for each size from 16 on."""
    is_measured = provenance is Provenance.MEASURED
    selections = tuple(
        Selection(
            exact=problem.exact_axes(),
            nearest=problem.at(m=16 << number).nearest_axes(),
            config=chosen,
            provenance=provenance,
            time_us=2.0,
            error_factor=None if is_measured else 2.0,
            default_us=3.0,
            floor_us=1.0,
            reason="made up",
            reports=sound(chosen).reports,
            timing=Timing(2.0, 1.9, 2.1, 20) if is_measured else None,
        )
        for number, chosen in enumerate(configs)
    )
    cell = CellResult(problem.exact_axes(), sha("t"), Environment("3", "none 0"), {}, selections)
    ResultsStore(folder).merge(gpu, "toy", [cell])


@pytest.fixture
def results(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(KERNELS, "toy", "toy_kernel:ToyKernel")
    return folders.results


def origins(results: Path, most: int = MOST) -> list[str]:
    cell = Cell(ToyKernel(), A100, NARROW)
    return [s.origin for s in Elsewhere([ResultsStore(results)], [cell]).warm_starts(cell, most)]


def test_nearest_first_and_never_what_this_search_will_write(results: Path) -> None:
    save(results, "a100", [config(64, "c")])
    assert origins(results) == []
    save(results, "h100", [config(16)])
    save(results, "a100", [config(64, "a", 4)], WIDE)
    save(results, "a100-40gb", [config(128, "c", 4)])
    save(results, "mi300x", [config(128, "a", 1, 1)], WIDE, Provenance.PREDICTED)
    assert origins(results) == [
        "a100-40gb (measured)",
        "a100 (measured) width=128",
        "h100 (measured)",
        "mi300x (predicted) width=128",
    ]
    assert origins(results, 1) == ["a100-40gb (measured)"]


def test_at_most_four_that_differ_in_two_knobs_and_are_legal(results: Path) -> None:
    default = ToyKernel().default_config(NARROW, A100)
    near = config(64).replace(num_stages=1)
    illegal = config(16, num_warps=4)  # the rule of the toy: 16 rows of a tile per warp
    others = [config(128, "c", 2), config(16, "a"), config(32, "c", 1, 1), config(128, "a", 4, 1)]
    many = [config(64), near, default.replace(splits=4), *others]
    save(results, "h100", many, provenance=Provenance.PREDICTED)
    text = ResultsStore(results).path("h100", "toy")
    cell = Cell(ToyKernel(), A100, NARROW)
    assert illegal not in cell.space
    found = Elsewhere([ResultsStore(results)]).warm_starts(cell)
    assert text.exists()
    assert [s.config for s in found] == [config(64), *others[:3]]
    text.write_text(text.read_text()[:-50])
    assert Elsewhere([ResultsStore(results)]).warm_starts(cell) == (), "a bad file costs nothing"


class Lines(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def line(self, text: str) -> None:
        self.said.append(text)


class Run:
    """One search of the toy, on a device on which the warm start alone is fast."""

    def __init__(self, folders: Folders, templates: Path, warm: bool, fast: Config) -> None:
        cell = Cell(ToyKernel(), A100, NARROW)
        self.builder = FakeBuilder(A100, write_templates(templates))
        self.device = MadeUpDevice(lambda c: 10.0 if c == fast else 20.0)
        self.reporter = Lines()
        store = ResultsStore(folders.results)
        elsewhere = Elsewhere([store], [cell]) if warm else None
        (tuned,) = tune(
            [cell], self.builder, store, folders.studies, OPTIONS, Deadline(None), self.reporter,
            self.device, elsewhere,
        )  # fmt: skip
        self.result = tuned.result
        self.bytes = tuned.path.read_bytes()


def test_a_run_tries_times_and_names_them(folders: Folders, results: Path, tmp_path: Path) -> None:
    # The model thinks little of it, so that it would be no finalist on its own merits.
    fast = config(16, "c", 1, 1)
    save(results, "h100", [fast])
    cold = Run(folders, tmp_path / "cold", False, fast)
    assert all(s.config != fast for s in cold.result.selections)
    assert "warm_starts" not in cold.result.search
    warm = Run(folders, tmp_path / "warm", True, fast)
    assert fast.replace(splits=1) in warm.builder.asked[:4]
    for selection in warm.result.selections:
        assert selection.config == fast
        assert selection.reason.endswith("; a warm start of h100 (measured)")
    assert warm.result.search["warm_starts"] == [f"h100 (measured): {fast}"]
    assert any("warm starts: 1 of h100 (measured)" in line for line in warm.reporter.said)
    again = Run(folders, tmp_path / "again", True, fast)
    assert again.bytes == warm.bytes, "its own results play no part"


def test_half_of_a_search_stays_its_own(results: Path) -> None:
    cell = Cell(ToyKernel(), A100, NARROW)
    save(results, "h100", [config(64), config(128, "c", 2), config(16, "a"), config(32, "c", 1, 1)])
    found = Elsewhere([ResultsStore(results)]).warm_starts(cell, OPTIONS.trials_for(cell) // 4)
    assert len(found) == 4
    assert len(found) + len(cell.seeds(16 // 2 - len(found))) <= 8


def test_objectives_of_several_points() -> None:
    floors = (1.0, 4.0)
    assert OBJECTIVES["latency"]((2.0, 8.0), floors) == pytest.approx(4.0)
    assert OBJECTIVES["worst"]((2.0, 8.0), floors) == pytest.approx(4.0)
    assert OBJECTIVES["worst"]((6.0, 4.0), floors) == pytest.approx(12.0)
    assert OBJECTIVES["latency"]((6.0, 4.0), floors) == pytest.approx(24.0**0.5)


def test_the_objective_decides_what_a_search_likes_best() -> None:
    cells = [Cell(ToyKernel(), A100, NARROW, objective=name) for name in OBJECTIVES]
    for cell in cells:
        evaluation = sound(cell.representative(cell.binaries[0]))
        times = [cell.best_at(point, evaluation).prediction.time_us for point in cell.points]
        floors = [cell.floor_us(point) for point in cell.points]
        expected = OBJECTIVES[cell.objective_name](times, floors)
        assert cell.objective(evaluation) == pytest.approx(expected)
    assert cells[0].prior != cells[1].prior


def test_unknown_objectives_list_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "--gpu", "a100", "--objective", "energy"])
    assert caught.value.code == 2
    assert "'latency', 'worst'" in capsys.readouterr().err
