"""Dtype names used in problems and templates, and what they weigh."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FLOAT_DTYPES = ("bf16", "fp16", "fp32")
DTYPE_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4, "fp8": 1, "int8": 1}

MACHINE_EPSILON = {"bf16": 2.0**-8, "fp16": 2.0**-11, "fp32": 2.0**-24}
"""Unit roundoff: half the distance from 1 to the next number."""

ACCUMULATION_ERROR = 2.0**-20
"""Share of an output that summing a few thousand products in fp32 may cost (2^-24 a step, random
signs), plus the last bits of exp2."""


def torch_dtype(name: str) -> torch.dtype:
    """Torch's dtype of that name."""
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[name]


def dot_precision(dtype: str) -> str:
    """Triton's `input_precision`: TF32 would cost fp32 inputs 13 bits, others ignore it."""
    return "ieee" if dtype == "fp32" else "tf32"


def next_power_of_2(number: int) -> int:
    """Smallest power of two that is at least `number` (1 for 0)."""
    return 1 << max(0, number - 1).bit_length()
