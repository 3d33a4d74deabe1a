"""`autotune verify`: random legal configurations of every kernel against an fp64 reference."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.arch import GpuArch
from autotune.config import Config
from autotune.kernels.spec import KernelSpec
from autotune.paths import child_environment
from autotune.pool import Outcome, Request, WorkerPool
from autotune.problem import Problem
from autotune.records import Status
from autotune.render import TemplateFolder
from autotune.space import SearchSpace

CHECK_TIMEOUT_S = 300.0
"""The interpreter runs programs one by one, in Python."""


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration to check on one problem."""

    spec: KernelSpec[Any]
    problem: Problem
    config: Config


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a case."""

    case: Case
    status: Status
    reason: str | None
    relative: float | None
    elementwise: float | None
    seconds: float | None


def in_dtypes(problems: Sequence[Problem], dtypes: Sequence[str]) -> list[Problem]:
    """The same problems in each of these types, none twice; all as they are without types."""
    if not dtypes:
        return list(problems)
    return list(
        dict.fromkeys(
            type(problem).from_axes(
                {**problem.exact_axes(), **problem.nearest_axes(), "dtype": dtype}
            )
            for dtype in dtypes
            for problem in problems
        )
    )


def small_problems(spec: KernelSpec[Any], text: str, dtypes: Sequence[str]) -> list[Problem]:
    """The problem that `k=v,k=v` names, in each of these types unless it names one.

    What it does not name is as in a hard problem that agrees with it on most axes, and of these in
    the one with most to calculate: small enough for the interpreter, where the usual sizes are not.

    Raises:
        UnknownChoiceError: a name is not an axis of the kernel, or a value is not a choice.
        UsageError: a value has the wrong type, or the text another form.
    """
    named = spec.problem_type.read_axes(text)

    def likeness(problem: Problem) -> tuple[int, float]:
        axes = {**problem.exact_axes(), **problem.nearest_axes()}
        return sum(axes[name] == value for name, value in named.items()), spec.flops(problem)

    like = max(spec.hard_problems(), key=likeness)
    axes = {**like.exact_axes(), **like.nearest_axes(), **named}
    return in_dtypes([spec.problem_type.from_axes(axes)], () if "dtype" in named else dtypes)


def cases(
    specs: Sequence[KernelSpec[Any]],
    arch: GpuArch,
    samples: int,
    seed: int,
    problems: Callable[[KernelSpec[Any]], Sequence[Problem]],
) -> Iterator[Case]:
    """Default plus `samples` random legal configurations of every problem of every kernel.

    Half of these, rounded down, have variants that an ordinary search leaves alone.
    """
    for spec in specs:
        for problem in problems(spec):
            space = spec.space(problem, arch)
            draw = random.Random(f"{seed} {spec.name} {problem.label()}")
            default = spec.default_config(problem, arch)
            others = [config for config in space.legal if config != default]
            drawn = draw.sample(others, min(samples, len(others)))
            varied = _with_variants(space, draw, samples // 2)
            for config in [default, *drawn[: samples - len(varied)], *varied]:
                yield Case(spec, problem, config)


def _with_variants(space: SearchSpace, draw: random.Random, count: int) -> list[Config]:
    """Random legal configurations with variants; fewer than `count` where few are legal."""
    found: dict[Config, None] = {}
    for _ in range(50 * count if space.variants else 0):
        odd = {knob.name: draw.choice(knob.values) for knob in space.variants}
        config = Config({**draw.choice(space.legal), **odd})
        if space.why_illegal(config) is None and space.stored(config) not in space:
            found[space.stored(config)] = None
        if len(found) == count:
            break
    return list(found)


def verify(
    wanted: Iterable[Case],
    templates: TemplateFolder,
    cache: Path,
    seed: int,
    jobs: int,
    device: str,
) -> Iterator[Verdict]:
    """Check all cases in parallel; `device` "cpu" means Triton's interpreter. In any order.

    Cases are taken, and rendered, as processes become free for them.
    On a GPU, too, processes run side by side: compiling takes longest, and nothing is timed.
    """
    with checkers(jobs, device) as pool:
        yield from verify_in(pool, wanted, templates, cache, seed, device)


def checkers(jobs: int, device: str) -> WorkerPool:
    """Processes that check candidates on the device, "cpu" for Triton's interpreter."""
    interpreted = {"TRITON_INTERPRET": "1"} if device == "cpu" else {}
    return WorkerPool(jobs, child_environment(OMP_NUM_THREADS="1", **interpreted))


def verify_in(
    pool: WorkerPool,
    wanted: Iterable[Case],
    templates: TemplateFolder,
    cache: Path,
    seed: int,
    device: str,
) -> Iterator[Verdict]:
    """As `verify`, in processes that `checkers` made for the same device and that stay."""
    taken: list[Case] = []

    def requests() -> Iterator[Request]:
        for case in wanted:
            taken.append(case)
            yield {
                "op": "check",
                "kernel": case.spec.name,
                "problem": {**case.problem.exact_axes(), **case.problem.nearest_axes()},
                "config": dict(case.config),
                "path": str(templates.render(case.spec, case.problem, case.config).write(cache)),
                "seed": seed,
                "device": device,
            }

    for index, reply in pool.run(requests(), CHECK_TIMEOUT_S):
        answer = reply.answer
        if reply.outcome is not Outcome.ANSWERED:
            timed_out = reply.outcome is Outcome.TIMED_OUT
            status = Status.BENCH_TIMEOUT if timed_out else Status.CRASHED
            yield Verdict(taken[index], status, reply.detail, None, None, None)
        else:
            yield Verdict(
                taken[index],
                Status(answer["status"]),
                answer.get("reason"),
                answer.get("relative"),
                answer.get("elementwise"),
                answer["seconds"],
            )
