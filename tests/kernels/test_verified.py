"""Every kernel in the interpreter: defaults and random legal configurations against fp64."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from autotune.arch import lookup
from autotune.kernels import KERNELS, load_kernel
from autotune.paths import cache_dir, templates_dir
from autotune.pool import WorkerPool
from autotune.problem import Problem
from autotune.records import Status
from autotune.render import TemplateFolder
from autotune.verify import Case, cases, verify_in

SEED = 1
"""Not the command's default: together they see more configurations."""
DTYPES = ("bf16", "fp16", "fp32")
PROBLEMS = {
    f"{kernel}-{problem.label()}": problem
    for kernel in KERNELS
    for problem in load_kernel(kernel).hard_problems()
}


MOST_RANGES = 16
"""Of a context, here: 150 tokens are ten tiles at most, and eight ranges are merged at a time."""


def faults(interpreter: WorkerPool, wanted: Sequence[Case]) -> list[str]:
    templates = TemplateFolder(templates_dir())
    verdicts = list(verify_in(interpreter, wanted, templates, cache_dir(), SEED, "cpu"))
    assert len(verdicts) == len(wanted)
    return [
        f"{v.case.config}: {v.status} {v.reason}" for v in verdicts if v.status is not Status.OK
    ]


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_hard_problems(interpreter: WorkerPool, problem: Problem) -> None:
    spec = load_kernel(problem.kernel)
    wanted = list(cases([spec], lookup("a100"), 1, SEED, lambda _: [problem]))
    assert len(wanted) == 2
    assert faults(interpreter, [with_ranges(case, MOST_RANGES) for case in wanted]) == []


def with_ranges(case: Case, most: int) -> Case:
    """The same case without further ranges, all of them empty, each a program of its own."""
    if case.config.get("variant") != "split" or case.config.number("num_splits") <= most:
        return case
    return dataclasses.replace(case, config=case.config.replace(num_splits=most))


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_more_ranges_than_tokens(interpreter: WorkerPool, dtype: str) -> None:
    spec, arch = load_kernel("paged_attention_decode"), lookup("a100")
    sizes = "head_dim=16,group=2,num_kv_heads=1,num_seqs=2,context_len=35"
    problem = spec.problem_type.parse(f"dtype={dtype},{sizes}")
    space = spec.space(problem, arch)
    configs = [
        space.closest({**spec.default_config(problem, arch), "variant": "split", "num_splits": n})
        for n in (32, 64)
    ]
    assert [config["num_splits"] for config in configs] == [32, 64]
    assert faults(interpreter, [Case(spec, problem, config) for config in configs]) == []


def test_every_kernel_has_hard_problems_in_all_types() -> None:
    for kernel in KERNELS:
        own = [p.exact_axes()["dtype"] for p in PROBLEMS.values() if p.kernel == kernel]
        # Each gives its default and another configuration.
        assert {dtype: 2 * own.count(dtype) >= 10 for dtype in own} == dict.fromkeys(DTYPES, True)
