"""Every kernel in the interpreter: defaults and random legal configurations against fp64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from autotune.arch import lookup
from autotune.kernels import KERNELS, load_kernel
from autotune.kernels.spec import KernelSpec
from autotune.paths import cache_dir, templates_dir
from autotune.problem import Problem
from autotune.records import Status
from autotune.render import TemplateFolder
from autotune.verify import cases, verify

SEED = 1
"""Not the command's default: together they see more configurations."""


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_hard_problems(kernel: str, dtype: str) -> None:
    def problems(spec: KernelSpec[Any]) -> Sequence[Problem]:
        return [p for p in spec.hard_problems() if p.exact_axes()["dtype"] == dtype]

    wanted = list(cases([load_kernel(kernel)], lookup("a100"), 1, SEED, problems))
    assert len(wanted) >= 10
    verdicts = list(
        verify(wanted, TemplateFolder(templates_dir()), cache_dir(), SEED, jobs=1, device="cpu")
    )
    assert len(verdicts) == len(wanted)
    failed = [
        f"{v.case.problem.label()} | {v.case.config}: {v.status} {v.reason}"
        for v in verdicts
        if v.status is not Status.OK
    ]
    assert not failed, "\n".join(failed)
