"""Recording a space: every binary of a cell, or a fair sample, timed at every point.

What fails is recorded like what works: a sampler that is replayed must be able to fail. Where time
runs out the binaries done so far are a uniform sample (after the defaults), and the file says so.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from autotune import __version__
from autotune.build import Builder
from autotune.cell import Cell
from autotune.deadline import Deadline
from autotune.gpu import Swept
from autotune.judge import DuplicateFinder
from autotune.problem import Problem
from autotune.recorded import RecordedSpace, knob_from_values
from autotune.recorded_files import write_space
from autotune.records import Environment, Evaluation, Status
from autotune.space import Config

_CHUNK = 32
"""Binaries compiled, then timed, before the clock is looked at."""

Row = tuple[Status, float | None]


class Sweeper(Protocol):
    """Something that times many configurations; see `gpu`."""

    def describe(self, environment: Environment) -> Environment:
        """The compiler's environment, completed."""
        ...

    def sweep(self, cell: Cell, point: Problem, configs: Sequence[Config]) -> list[Swept]:
        """One outcome for each configuration."""
        ...


def record(
    cell: Cell,
    builder: Builder,
    device: Sweeper,
    deadline: Deadline,
    seed: int = 0,
    on_done: Callable[[int], None] = lambda count: None,
) -> list[RecordedSpace]:
    """Compile and time the cell's configurations until all are done or time is up.

    Returns:
        One space per point, host knobs included; points at which nothing worked have none.
    """
    rows: dict[Problem, dict[Config, Row]] = {point: {} for point in cell.points}
    order = _order(cell, seed)
    duplicates = DuplicateFinder()
    done = 0
    while done < len(order) and (done == 0 or not deadline.passed):
        chunk = order[done : done + _CHUNK]
        representatives = [cell.representative(binary) for binary in chunk]
        evaluations = [
            duplicates.screen(evaluation)
            for evaluation in builder.evaluate(cell.spec, cell.problem, representatives)
        ]
        for point in cell.points:
            rows[point].update(_at(cell, point, device, evaluations))
        done += len(chunk)
        on_done(len(chunk))
    told = device.describe(builder.environment)
    share = "all" if done == len(order) else f"a sample of {done} of"
    origin = (
        f"pagetune {__version__} on {told.device}, driver {told.driver}, torch {told.torch}, "
        f"triton {told.triton}: {share} {len(order)} binaries, seed {seed}"
    )
    return [
        _space(cell, point, found, origin)
        for point, found in rows.items()
        if any(time is not None for _, time in found.values())
    ]


def write_spaces(spaces: Sequence[RecordedSpace], folder: Path) -> list[Path]:
    """Write each to `<folder>/<name>.space.json.gz` and return the paths.

    Raises:
        StorageError: a file cannot be written.
    """
    paths = []
    for space in spaces:
        path = folder / f"{space.name}.space.json.gz"
        write_space(space, path)
        paths.append(path)
    return paths


def _order(cell: Cell, seed: int) -> list[Config]:
    defaults = dict.fromkeys(cell.space.binary_of(c) for c in cell.defaults.values())
    others = [binary for binary in cell.binaries if binary not in defaults]
    random.Random(seed).shuffle(others)
    return [*defaults, *others]


def _at(
    cell: Cell, point: Problem, device: Sweeper, evaluations: Sequence[Evaluation]
) -> dict[Config, Row]:
    found: dict[Config, Row] = {}
    wanted: list[Config] = []
    for evaluation in evaluations:
        configs = cell.space.binaries[cell.space.binary_of(evaluation.config)]
        if evaluation.status is Status.OK:
            wanted += configs
        else:
            found |= dict.fromkeys(configs, (evaluation.status, None))
    swept = device.sweep(cell, point, wanted) if wanted else []
    for config, outcome in zip(wanted, swept, strict=True):
        timed = outcome.status is Status.OK
        found[config] = (
            outcome.status,
            float(f"{statistics.median(outcome.samples_us):.5g}") if timed else None,
        )
    return found


def _space(cell: Cell, point: Problem, found: dict[Config, Row], origin: str) -> RecordedSpace:
    configs = [config for config in cell.space.legal if config in found]
    knobs = tuple(
        knob_from_values(knob.name, [config[knob.name] for config in configs])
        for knob in cell.space.knobs
    )
    sizes = "-".join(f"{name}{value}" for name, value in point.nearest_axes().items())
    return RecordedSpace(
        name=f"{cell.arch.name}-{cell.spec.name}-{_short(cell)}-{sizes}",
        gpu=cell.arch.name,
        kernel=cell.spec.name,
        problem={
            name: value if not isinstance(value, float) else str(value)
            for name, value in {**point.named_axes(), **point.nearest_axes()}.items()
        },
        knobs=knobs,
        configs=tuple(configs),
        times_us=tuple(found[config][1] for config in configs),
        statuses=tuple(found[config][0] for config in configs),
        origin=origin,
    )


def _short(cell: Cell) -> str:
    """Exact axes that are not at their defaults, as part of a file name."""
    usual = type(cell.problem)().exact_axes()
    odd = [f"{k}{v}" for k, v in cell.problem.exact_axes().items() if v != usual[k]]
    return "-".join(odd) or "usual"
