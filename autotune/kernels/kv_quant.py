"""Codes and scales of a quantised KV cache: what engines write, and what checks compare with.

A number is code * scale. Codes are int8, symmetric, or e4m3fn (Micikevicius et al. 2022), which has
three bits of mantissa at any size. Scales are fp32, per KV head or per token and KV head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotune.kernels.quantisation import LARGEST_CODE, code_dtype

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Quantised:
    """Codes of a cache's shape, and their scales."""

    codes: torch.Tensor  # int8 or float8_e4m3fn [..., num_kv_heads, head_dim]
    scales: torch.Tensor  # fp32 [num_kv_heads], or [..., num_kv_heads] with one per token


def quantise(x: torch.Tensor, kv_dtype: str, kv_scale: str) -> Quantised:
    """Round to the nearest code, ties to even, with the largest number at the largest code.

    Args:
        x: [..., num_kv_heads, head_dim]; NaN stands for nothing written and gets no say in scales.
        kv_dtype: "int8" or "fp8".
        kv_scale: "head" or "token".

    Returns:
        Codes, for NaN those that do most harm to who reads them: NaN, or -128. Scales of tokens
        with nothing but NaN are NaN; of nothing but zeros, 1.
    """
    import torch

    amax = x.float().abs().nan_to_num(nan=0.0).amax(-1)
    if kv_scale == "head":
        amax = amax.flatten(0, -2).amax(0)
    scales = torch.where(amax > 0, amax / LARGEST_CODE[kv_dtype], torch.ones_like(amax))
    ratio = x.float() / scales[..., None]
    most = LARGEST_CODE[kv_dtype]
    rounded = ratio.round().nan_to_num(nan=-128.0) if kv_dtype == "int8" else ratio
    codes = rounded.clamp(-most if kv_dtype == "fp8" else -128.0, most).to(code_dtype(kv_dtype))
    if kv_scale == "token":
        scales = scales.masked_fill(x.isnan().all(-1), torch.nan)
    return Quantised(codes, scales)
