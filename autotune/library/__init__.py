"""The table of library routines: what torch has that an engine can run in a kernel's place.

A routine works on the very tensors that the kernel gets, where they lie: whatever it has to do
first (gather pages) is in its launch, so that a race times what an engine would pay. Adding one: a
`Routine` in this package and a row. Other implementations, which want tensors of their own, are
`peers`: raced for comparison, never selected.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from autotune.errors import UnknownChoiceError
from autotune.library.routine import Launch, Routine
from autotune.problem import Problem

PREFIX = "library:"
"""Before a routine's name where entrants of a race are named."""

ROUTINES: dict[str, dict[str, str]] = {
    "fused_mlp": {
        "cublas": "autotune.library.mlp:CUBLAS",
        "compiled": "autotune.library.mlp:COMPILED",
    },
    "paged_attention_prefill": {
        "sdpa": "autotune.library.attention:SDPA",
    },
}
"""Kernel → name of a routine → "module:routine"."""

WITHOUT: Mapping[str, str] = {
    "paged_attention_decode": "a captured step would have to gather, for every sequence, the "
    "longest context that there can be: a race over the contexts at hand says nothing about that",
    "dequant_gemm": "torch's int4 product takes bf16 and 4 bits only, and weights packed its own "
    "way: an engine would have to hold both packings to change between them by size",
    "rms_norm": "torch's takes no residual, which half of a model's norms add",
    "rope_kv_write": "torch has none that rotates and writes to slots",
    "quantize_per_token": "torch has none that scales each token",
}
"""Kernels that no routine can take the place of, and why."""


def routines_for(problem: Problem) -> tuple[str, ...]:
    """Names of the routines that serve a problem, in the table's order."""
    names = ROUTINES.get(problem.kernel, {})
    return tuple(name for name in names if _find(problem.kernel, name).why_not(problem) is None)


def why_not(name: str, problem: Problem) -> str | None:
    """Why a routine cannot serve a problem, None if it can.

    Raises:
        UnknownChoiceError: the problem's kernel has no routine of that name.
    """
    return _find(problem.kernel, name).why_not(problem)


def load_routine(name: str, problem: Problem) -> Launch:
    """Return what is called in the place of the kernel's `launch`; imports torch.

    Raises:
        UnknownChoiceError: the problem's kernel has no routine of that name.
    """
    return _find(problem.kernel, name).make(problem)


def _find(kernel: str, name: str) -> Routine:
    known = ROUTINES.get(kernel, {})
    if name not in known:
        raise UnknownChoiceError(f"library routine for {kernel}", name, known)
    module, _, attribute = known[name].partition(":")
    found: Routine = getattr(importlib.import_module(module), attribute)
    return found
