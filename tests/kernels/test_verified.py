"""Every kernel in the interpreter: defaults and random legal configurations against fp64."""

from __future__ import annotations

import pytest

from autotune.arch import lookup
from autotune.kernels import KERNELS, load_kernel
from autotune.paths import cache_dir, templates_dir
from autotune.pool import WorkerPool
from autotune.problem import Problem
from autotune.records import Status
from autotune.render import TemplateFolder
from autotune.verify import cases, verify_in

SEED = 1
"""Not the command's default: together they see more configurations."""
DTYPES = ("fp16", "fp32")
PROBLEMS = {
    f"{kernel}-{problem.label()}": problem
    for kernel in KERNELS
    for problem in load_kernel(kernel).hard_problems()
}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_hard_problems(interpreter: WorkerPool, problem: Problem) -> None:
    spec = load_kernel(problem.kernel)
    wanted = list(cases([spec], lookup("a100"), 1, SEED, lambda _: [problem]))
    templates = TemplateFolder(templates_dir())
    verdicts = list(verify_in(interpreter, wanted, templates, cache_dir(), SEED, "cpu"))
    assert len(verdicts) == len(wanted) == 2
    failed = [
        f"{v.case.config}: {v.status} {v.reason}" for v in verdicts if v.status is not Status.OK
    ]
    assert not failed, "\n".join(failed)


def test_every_kernel_has_hard_problems_in_both_types() -> None:
    for kernel in KERNELS:
        own = [p.exact_axes()["dtype"] for p in PROBLEMS.values() if p.kernel == kernel]
        # Each gives its default and another configuration.
        assert {dtype: 2 * own.count(dtype) >= 10 for dtype in own} == dict.fromkeys(DTYPES, True)
