"""Records made up for tests: sound ones, from which a test changes what it is about."""

from __future__ import annotations

import hashlib
from typing import Any

from autotune.arch import lookup
from autotune.kernels.paged_attention_decode import PagedAttentionDecode
from autotune.kernels.paged_attention_decode_problem import DecodeProblem
from autotune.kernels.spec import Work
from autotune.records import CompileReport, Provenance, Selection, Timing


def sha(text: str) -> str:
    """16 hex digits, as of machine code."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_report(**changes: Any) -> CompileReport:
    """A pipelined kernel with warp-level matrix instructions that fits any GPU."""
    facts: dict[str, Any] = {
        "entry": "main",
        "registers": 96,
        "stack_bytes": 0,
        "shared_bytes": 32 * 1024,
        "num_warps": 4,
        "num_stages": 3,
        "mma": "mma",
        "loop": {"mma": 32, "async_copy": 8, "load_shared": 16, "float": 40, "integer": 60},
        "loop_mma_flops": 32 * 4096,
        "binary_bytes": 9000,
        "binary_sha": sha("main"),
    }
    return CompileReport(**facts | changes)


def make_work(**changes: Any) -> Work:
    """A kernel that reads 64 MiB with a little matrix work, on a few waves of any GPU."""
    counts: dict[str, Any] = {
        "entry": "main",
        "grid": 512,
        "loop_steps": 64.0,
        "longest_steps": 64.0,
        "flops": 4e9,
        "matrix_dtype": "bf16",
        "dram_bytes": float(64 << 20),
        "l2_bytes": float(80 << 20),
        "step_bytes": 2048.0,
    }
    return Work(**counts | changes)


def make_selection(problem: DecodeProblem, gpu: str = "a100", **changes: Any) -> Selection:
    """The default configuration of a decode problem, predicted or measured at twice the floor."""
    provenance = changes.get("provenance", Provenance.PREDICTED)
    predicted = provenance is Provenance.PREDICTED
    measured = provenance is Provenance.MEASURED
    known = provenance is not Provenance.DEFAULT
    values: dict[str, Any] = {
        "exact": problem.exact_axes(),
        "nearest": problem.nearest_axes(),
        "config": PagedAttentionDecode().default_config(problem, lookup(gpu)),
        "provenance": provenance,
        "time_us": 123.456 if known else None,
        "error_factor": 2.0 if predicted else None,
        "default_us": 150.04 if known else None,
        "floor_us": 61.728,
        "reason": "bound by dram; num_warps 4→8",
        "reports": (make_report(),) if known else (),
        "timing": Timing(123.456, 120.0, 130.0, 15) if measured else None,
    }
    return Selection(**values | changes)
