"""Recorded spaces of the toy kernel: whole, cut short, with failures; and read back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toy_kernel import FakeBuilder, ToyKernel, ToyProblem, sound, write_templates

from autotune.arch import lookup
from autotune.cell import Cell
from autotune.config import Config
from autotune.deadline import Deadline
from autotune.gpu import Swept
from autotune.problem import Problem
from autotune.record import record, write_spaces
from autotune.recorded_files import read_space
from autotune.records import Environment, Evaluation, Status


class Sweeper:
    """Times by tile and point; mode b hangs."""

    def describe(self, environment: Environment) -> Environment:
        return environment

    def sweep(self, cell: Cell, point: Problem, configs: Sequence[Config]) -> list[Swept]:
        m = point.nearest_axes()["m"]
        return [
            Swept(Status.BENCH_TIMEOUT, "hung")
            if config["mode"] == "b"
            else Swept(Status.OK, None, (m + config.number("tile"),) * 3)
            for config in configs
        ]


def spilled(config: Config) -> Evaluation:
    """Facts of the toy; tiles of 128 do not compile."""
    if config["tile"] == 128:
        return Evaluation(config, Status.COMPILE_ERROR, "too large")
    return sound(config)


def test_every_legal_configuration_is_there_with_its_time_or_its_failure(tmp_path: Path) -> None:
    cell = Cell(ToyKernel(), lookup("h200"), ToyProblem())
    builder = FakeBuilder(cell.arch, write_templates(tmp_path / "templates"), spilled)
    spaces = record(cell, builder, Sweeper(), Deadline(None)).spaces
    paths = write_spaces(spaces, tmp_path / "spaces")
    assert len(set(paths)) == len(cell.points) == 2
    for path, point in zip(paths, cell.points, strict=True):
        assert path.stat().st_size < 1 << 20
        space = read_space(path)
        assert set(space.configs) == set(cell.space.legal)
        assert "all 54 binaries" in space.origin
        assert space.problem["m"] == point.nearest_axes()["m"]
        for config, status, time in zip(space.configs, space.statuses, space.times_us, strict=True):
            if config["tile"] == 128:
                assert status is Status.COMPILE_ERROR
            elif config["mode"] == "b":
                assert status is Status.BENCH_TIMEOUT
            else:
                assert time == point.nearest_axes()["m"] + config.number("tile")


def test_what_is_cut_short_is_a_sample_with_the_defaults(tmp_path: Path) -> None:
    cell = Cell(ToyKernel(), lookup("h200"), ToyProblem())
    builder = FakeBuilder(cell.arch, write_templates(tmp_path / "templates"))
    spaces = record(cell, builder, Sweeper(), Deadline(0.0), seed=3).spaces
    for space in spaces:
        assert "a sample of 32 of 54 binaries, seed 3" in space.origin
        assert len({cell.space.binary_of(config) for config in space.configs}) == 32
        assert cell.defaults[cell.points[0]] in space.configs
