"""A recorded space of one of our kernels, as the cost model sees it: all candidates at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from autotune.arch import GpuArch, lookup
from autotune.binary_facts import BinaryFacts
from autotune.coefficients import CoefficientTable, kind_of
from autotune.cost_model import launch_us
from autotune.errors import UsageError
from autotune.kernels import KERNELS, load_kernel
from autotune.launch import Launch
from autotune.prior import Candidate, guess_all_us
from autotune.recorded import RecordedSpace
from autotune.records import Status
from autotune.tiles import Array

_ON_DEVICE = (Status.OK, Status.WRONG_RESULT, Status.LAUNCH_ERROR, Status.BENCH_TIMEOUT)
"""What a model that knows the compiler's facts may pick; only the first has a time."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Launches of entry points of one kind."""

    kind: str
    launch: Launch
    """Every field an array of [members]."""
    candidate: np.typing.NDArray[np.int64]
    """Which candidate each member is of: [members]."""


@dataclass(frozen=True, slots=True)
class ModelCase:
    """One recorded space; arrays over its candidates, which compiled to something sound."""

    name: str
    kernel: str
    cell: str
    """Kernel, GPU and exact axes: spaces of one cell differ in sizes."""
    exact: Mapping[str, Any]
    """Exact axes that are not at their defaults, or that labels always name."""
    point: str
    """Sizes, as text."""
    arch: GpuArch
    times_us: Array
    """Measured: [candidates]; NaN for what failed on the device."""
    complete: bool
    stacks: tuple[Stack, ...]
    """By the compiler's facts; empty where they were not kept."""
    candidates: tuple[Candidate, ...]
    """For estimates."""

    def predict_us(self, table: CoefficientTable) -> Array:
        """By the compiler's facts: [candidates]."""
        assert self.stacks, "no facts were kept"
        total = np.zeros(len(self.times_us))
        for stack in self.stacks:
            times = launch_us(stack.launch, self.arch, table.row(stack.kind, self.arch))
            np.add.at(total, stack.candidate, times)
        return total

    def guess_us(self, table: CoefficientTable) -> Array:
        """By estimated facts, as before anything is compiled: [candidates]."""
        return guess_all_us(self.arch, self.candidates, table)


def make_model_case(space: RecordedSpace, facts: BinaryFacts | None) -> ModelCase:
    """Join a space and what the compiler said of its binaries.

    Raises:
        UsageError: the space is not of a kernel of ours, or none of its binaries is in the facts.
    """
    if space.kernel not in KERNELS:
        known = ", ".join(KERNELS)
        raise UsageError(f"{space.name}: the cost model knows {known}, not {space.kernel!r}")
    spec, arch = load_kernel(space.kernel), lookup(space.gpu)
    usual = {**spec.problem_type().exact_axes(), **spec.problem_type().nearest_axes()}
    problem = spec.problem_type.from_axes(
        {  # a recording holds no fractions: they are written as text
            name: float(value) if isinstance(usual.get(name), float) else value
            for name, value in space.problem.items()
        }
    )
    legal = spec.space(problem, arch)
    times: list[float] = []
    candidates: list[Candidate] = []
    members: dict[str, list[tuple[int, Launch]]] = defaultdict(list)
    for config, time_us, status in zip(space.configs, space.times_us, space.statuses, strict=True):
        if status not in _ON_DEVICE:
            continue
        works = spec.work(problem, config, arch)
        if facts is not None:
            reports = facts.reports.get(legal.binary_of(config), ())
            if not reports:
                continue
            for work, report in zip(works, reports, strict=True):
                launch = Launch.from_report(work, report, arch)
                members[kind_of(work.entry)].append((len(times), launch))
        times.append(np.nan if time_us is None else time_us)
        candidates.append((works, config))
    if not np.isfinite(times).any():
        raise UsageError(f"{space.name}: its facts know none of its binaries: of another recording")
    return ModelCase(
        name=space.name,
        kernel=space.kernel,
        cell=f"{space.kernel}/{space.gpu}/{problem.label('exact')}",
        exact=problem.named_axes(),
        point=problem.label("nearest"),
        arch=arch,
        times_us=np.array(times),
        complete=space.complete,
        stacks=tuple(_stack(kind, found) for kind, found in sorted(members.items())),
        candidates=tuple(candidates),
    )


def _stack(kind: str, found: list[tuple[int, Launch]]) -> Stack:
    columns = {
        field.name: np.array([getattr(launch, field.name) for _, launch in found], dtype=float)
        for field in fields(Launch)
    }
    return Stack(kind, Launch(**columns), np.array([at for at, _ in found], dtype=np.int64))
