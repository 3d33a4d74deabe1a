"""One order of summation for all points of a cell, where results must not depend on the batch."""

from __future__ import annotations

import json
import math

import pytest
from own_folders import Folders
from record_cases import make_work
from test_measure import MadeUpDevice
from toy_kernel import FakeBuilder, ToyKernel, ToyProblem, sound, write_templates

from autotune.arch import GpuArch, lookup
from autotune.cell import Cell
from autotune.config import Config
from autotune.deadline import Deadline
from autotune.errors import CorruptResultError
from autotune.kernels import KERNELS, load_kernel
from autotune.kernels.spec import Work
from autotune.measure import measure
from autotune.problem import Problem
from autotune.progress import Silent
from autotune.records import Evaluation
from autotune.results import CellResult, ResultsStore
from autotune.select import select
from autotune.tune import SearchOptions, tune

A100 = lookup("a100")


class TornKernel(ToyKernel):
    """Splits pay at one point and cost at the other; which tile is best differs, too."""

    def work(self, problem: ToyProblem, config: Config, arch: GpuArch) -> tuple[Work, ...]:
        few = problem.m == 16
        splits, tile = config.number("splits"), config.number("tile")
        cost = (4 / splits) ** 1.5 if few else splits
        cost *= {16: 1.0, 32: 1.3, 64: 2.0, 128: 4.0}[tile if few else 2048 // tile]
        cost *= {"a": 1.1, "b": 1.0, "c": 1.2}[str(config["mode"])]
        return (make_work(flops=0.0, dram_bytes=1e8 * cost),)


def torn(*, repeatable: bool) -> Cell:
    return Cell(TornKernel(), A100, ToyProblem(), repeatable=repeatable)


def evaluations(cell: Cell) -> list[Evaluation]:
    return [sound(cell.representative(binary)) for binary in cell.binaries]


def test_points_agree_on_the_order_that_is_best_over_all_of_them() -> None:
    free, cell = torn(repeatable=False), torn(repeatable=True)
    judged = evaluations(cell)
    orders = {free.spec.reduction_order(free.problem, s.config, A100) for s in select(free, judged)}
    assert len(orders) == 2, "there is something to agree on"
    selections = select(cell, judged)
    (order,) = {cell.order(selection.config) for selection in selections}

    def loss(wanted: Config) -> float:
        total = 0.0
        for point in cell.points:
            times = [
                cell.predict(point, config, evaluation).prediction.time_us
                for evaluation in judged
                for config in cell.space.binaries[cell.space.binary_of(evaluation.config)]
                if cell.order(config) == wanted
            ]
            total += math.log(min(times))
        return total

    everything = {cell.order(config) for config in cell.space.legal}
    assert order == min((one for one in everything if one), key=loss)
    assert {selection.config["mode"] for selection in selections} == {"b"}


def test_a_default_of_another_order_is_compared_with_and_not_stored() -> None:
    cell = torn(repeatable=True)
    judged = evaluations(cell)
    selections = select(cell, judged)
    order = cell.order(selections[0].config)
    assert all(cell.order(default) != order for default in cell.defaults.values())
    for selection in selections:
        assert selection.default_us is not None
        assert "default: nothing" not in selection.reason


def test_without_a_sound_binary_the_untested_defaults_agree() -> None:
    class Moody(TornKernel):
        def default_config(self, problem: ToyProblem, arch: GpuArch) -> Config:
            return super().default_config(problem, arch).replace(splits=4 if problem.m == 16 else 1)

    cell = Cell(Moody(), A100, ToyProblem(), repeatable=True)
    selections = select(cell, [])
    assert len({cell.order(selection.config) for selection in selections}) == 1
    free = select(Cell(Moody(), A100, ToyProblem()), [])
    assert len({selection.config for selection in free}) == 2


def test_a_race_is_won_within_the_order() -> None:
    cell = torn(repeatable=True)
    judged = evaluations(cell)
    predicted = select(cell, judged)
    order = cell.order(predicted[0].config)
    device = MadeUpDevice(lambda config: 1.0 if cell.order(config) != order else 5.0)
    measured = measure(cell, judged, predicted, device, 6)
    for selection, point in zip(measured, cell.points, strict=True):
        assert cell.order(selection.config) == order
        assert selection.default_us == pytest.approx(1.0, rel=0.05), "raced all the same"
        others = [c for p, configs in device.raced if p == point for c in configs]
        assert [c for c in others if cell.order(c) != order] == [cell.defaults[point]]


def searched(folders: Folders, *, repeatable: bool) -> tuple[ResultsStore, CellResult]:
    templates = write_templates(folders.results.parent / "templates")
    store = ResultsStore(folders.results)
    builder = FakeBuilder(A100, templates)
    options = SearchOptions(effort="exhaustive")
    cell = torn(repeatable=repeatable)
    (done,) = tune([cell], builder, store, folders.studies, options, Deadline(None), Silent())
    return store, done.result


@pytest.mark.parametrize("repeatable", [True, False])
def test_results_say_so(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, repeatable: bool
) -> None:
    monkeypatch.setitem(KERNELS, "toy", "test_reduction_order:TornKernel")
    store, result = searched(folders, repeatable=repeatable)
    (read,) = store.read("a100", "toy")
    assert ("reduction_order" in read.search) == repeatable
    if repeatable:
        config = result.selections[0].config
        assert read.search["reduction_order"] == {k: config[k] for k in ("splits", "tile")}


def test_results_that_say_another_order_are_refused(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KERNELS, "toy", "test_reduction_order:TornKernel")
    store, _ = searched(folders, repeatable=True)
    path = store.path("a100", "toy")
    data = json.loads(path.read_text())
    data["cells"][0]["search"]["reduction_order"]["splits"] = 3
    path.write_text(json.dumps(data))
    with pytest.raises(CorruptResultError, match="another order"):
        store.read("a100", "toy")


@pytest.mark.parametrize("kernel", KERNELS)
def test_defaults_are_repeatable_and_orders_are_of_knobs(kernel: str) -> None:
    spec = load_kernel(kernel)
    for gpu in ("a100", "mi300x"):
        arch = lookup(gpu)
        problem: Problem = spec.problem_type()
        for point in spec.points(problem):
            config = spec.default_config(point, arch)
            space = spec.space(problem, arch).repeatable
            assert space.why_illegal(config) is None
            order = spec.reduction_order(problem, config, arch)
            assert order.keys() <= config.keys() | {"mma"}
            json.dumps(dict(order))
