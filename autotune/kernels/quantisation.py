"""Codes of eight bits: what the companion kernels quantise activations and KV caches to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.kernels.dtypes import MACHINE_EPSILON
from autotune.kernels.spec import Tolerance

if TYPE_CHECKING:
    import torch

CODES = ("int8", "fp8")
"""fp8 is e4m3fn on every GPU: four bits of exponent, three of mantissa, no infinity."""

LARGEST_CODE = {"int8": 127.0, "fp8": 448.0}

TINY = 2.0**-100
"""Rows whose largest magnitude is below are scaled as if it were this: the inverse stays finite."""

_TOLERANCES = {"int8": Tolerance(0.012, 0.5 / 127), "fp8": Tolerance(0.03, 16 / 448)}
"""Elementwise: half a step at the largest code. As a whole: normal rows of about a hundred numbers
lose a step over the root of 12 each, and fp8 at most half of a step of 2^-3, about half of that."""


def code_dtype(codes: str) -> torch.dtype:
    """Torch's dtype of a code."""
    import torch

    return {"int8": torch.int8, "fp8": torch.float8_e4m3fn}[codes]


def code_values(codes: str) -> dict[str, float]:
    """Constants that `include/quantize.jinja` needs."""
    return {"qmax": LARGEST_CODE[codes], "tiny": TINY}


def quantised_tolerance(codes: str, dtype: str) -> Tolerance:
    """Error of codes against the numbers they stand for, which were computed in `dtype`."""
    exact, own = _TOLERANCES[codes], 4 * MACHINE_EPSILON[dtype]
    return Tolerance(exact.relative + own, exact.elementwise + own)


def dequantise(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The numbers that codes stand for, fp64; scale has the shape of `codes` less the last."""
    return codes.double() * scale.double()[..., None]
