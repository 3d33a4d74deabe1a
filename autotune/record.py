"""Recording a space: every binary of a cell, or a fair sample, timed at every point.

What fails is recorded like what works: a sampler that is replayed must be able to fail. Where time
runs out the binaries done so far are a uniform sample (after the defaults), and the file says so.
A `Grid` records a part of a large space in full: some values of some knobs, and the defaults.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autotune import __version__
from autotune.binary_facts import BinaryFacts
from autotune.build import Builder
from autotune.cell import Cell
from autotune.config import Config, KnobValue
from autotune.deadline import Deadline
from autotune.gpu import Swept
from autotune.judge import DuplicateFinder
from autotune.problem import Problem
from autotune.recorded import RecordedSpace, knob_from_values
from autotune.recorded_files import write_space
from autotune.records import CompileReport, Environment, Evaluation, Status

_CHUNK = 32
"""Binaries compiled, then timed, before the clock is looked at."""

Grid = Mapping[str, Sequence[KnobValue]]
"""Knob → values that are recorded; knobs that are not named keep all of theirs."""

Row = tuple[Status, float | None]


class Sweeper(Protocol):
    """Something that times many configurations; see `gpu`."""

    def describe(self, environment: Environment) -> Environment:
        """The compiler's environment, completed."""
        ...

    def sweep(self, cell: Cell, point: Problem, configs: Sequence[Config]) -> list[Swept]:
        """One outcome for each configuration."""
        ...


@dataclass(frozen=True, slots=True)
class Recording:
    """What came of a cell."""

    spaces: tuple[RecordedSpace, ...]
    """One per point, host knobs included; points at which nothing worked have none."""
    facts: BinaryFacts
    """What the compiler said of every binary that it compiled."""
    wanted: int
    """Binaries of the space, or of the grid."""
    done: int


def record(
    cell: Cell,
    builder: Builder,
    device: Sweeper,
    deadline: Deadline,
    seed: int = 0,
    on_done: Callable[[int], None] = lambda count: None,
    grid: Grid | None = None,
    ahead: Executor | None = None,
    chunk_size: int = _CHUNK,
) -> Recording:
    """Compile and time the cell's configurations until all are done or time is up.

    Args:
        cell: whose space is recorded at its points.
        builder: compiles; used by one thread at a time.
        device: checks and times.
        deadline: looked at between chunks of binaries; one chunk is always done.
        seed: of the order in which binaries are taken.
        on_done: told how many more binaries are done.
        grid: the part of the space to record.
        ahead: one thread that compiles the next chunk while this one is timed.
        chunk_size: binaries between two looks at the clock; inputs are made anew for each chunk.
    """
    groups = _groups(cell, grid or {})
    rows: dict[Problem, dict[Config, Row]] = {point: {} for point in cell.points}
    order = _order(cell, list(groups), seed)
    first = min(_CHUNK, chunk_size)  # small, for nothing is timed while it is compiled
    chunks = [order[:first]]
    chunks += [order[at : at + chunk_size] for at in range(first, len(order), chunk_size)]
    duplicates = DuplicateFinder()
    reports: dict[Config, tuple[CompileReport, ...]] = {}

    def start(chunk: Sequence[Config]) -> Callable[[], list[Evaluation]]:
        configs = [cell.representative(binary) for binary in chunk]
        if ahead is None:
            return lambda: builder.evaluate(cell.spec, cell.problem, configs)
        return ahead.submit(builder.evaluate, cell.spec, cell.problem, configs).result

    done = 0
    compiled = start(chunks[0])
    for number, chunk in enumerate(chunks):
        evaluations = [duplicates.screen(evaluation) for evaluation in compiled()]
        if number + 1 < len(chunks):
            compiled = start(chunks[number + 1])
        for binary, evaluation in zip(chunk, evaluations, strict=True):
            reports |= {binary: evaluation.reports} if evaluation.reports else {}
        for point in cell.points:
            rows[point].update(_at(cell, point, device, groups, evaluations))
        done += len(chunk)
        on_done(len(chunk))
        if deadline.passed:
            break
    told = device.describe(builder.environment)
    what = "binaries" + (f" of the grid {_text(grid)} and the defaults" if grid else "")
    share = "all" if done == len(order) else f"a sample of {done} of"
    origin = (
        f"pagetune {__version__} on {told.device}, driver {told.driver}, torch {told.torch}, "
        f"triton {told.triton}: {share} {len(order)} {what}, seed {seed}"
    )
    spaces = tuple(
        _space(cell, point, found, origin, done == len(order))
        for point, found in rows.items()
        if any(time is not None for _, time in found.values())
    )
    facts = BinaryFacts(
        f"{cell.arch.name}-{cell.spec.name}-{_short(cell)}",
        cell.arch.name,
        cell.spec.name,
        builder.templates.sha(cell.spec.template),
        told,
        reports,
    )
    return Recording(spaces, facts, len(order), done)


def _groups(cell: Cell, grid: Grid) -> dict[Config, list[Config]]:
    """Binaries of the grid, and whole configurations of each; the defaults in any case."""
    usual = set(cell.defaults.values())
    groups: dict[Config, list[Config]] = {}
    for binary, configs in cell.space.binaries.items():
        kept = [
            config
            for config in configs
            if config in usual or all(config[name] in values for name, values in grid.items())
        ]
        if kept:
            groups[binary] = kept
    return groups


def _text(grid: Grid) -> str:
    return " ".join(f"{name}={'|'.join(map(str, values))}" for name, values in grid.items())


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


def _order(cell: Cell, binaries: Sequence[Config], seed: int) -> list[Config]:
    defaults = dict.fromkeys(cell.space.binary_of(c) for c in cell.defaults.values())
    others = [binary for binary in binaries if binary not in defaults]
    random.Random(seed).shuffle(others)
    return [*defaults, *others]


def _at(
    cell: Cell,
    point: Problem,
    device: Sweeper,
    groups: Mapping[Config, Sequence[Config]],
    evaluations: Sequence[Evaluation],
) -> dict[Config, Row]:
    found: dict[Config, Row] = {}
    wanted: list[Config] = []
    for evaluation in evaluations:
        configs = groups[cell.space.binary_of(evaluation.config)]
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


def _space(
    cell: Cell, point: Problem, found: dict[Config, Row], origin: str, complete: bool
) -> RecordedSpace:
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
        complete=complete,
    )


def _short(cell: Cell) -> str:
    """Exact axes that are not at their defaults, as part of a file name."""
    usual = type(cell.problem)().exact_axes()
    odd = [f"{k}{v}" for k, v in cell.problem.exact_axes().items() if v != usual[k]]
    return "-".join(odd) or "usual"
