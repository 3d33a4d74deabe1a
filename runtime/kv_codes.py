"""Codes of a quantised KV cache: eight bits a number, with a scale for each token and KV head.

A number is code * scale. Codes are int8, symmetric, or fp8 e4m3fn (Micikevicius et al. 2022). The
scale puts a head's largest magnitude at the largest code, so that nothing is to be calibrated and
what one token writes depends on that token alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

CODE_DTYPES: Mapping[str, torch.dtype] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
"""Types of a cache's codes by the name of its dtype."""

_LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
_TINY = 2.0**-100
"""Heads whose largest magnitude is below are scaled as if it were this: nobody divides by zero."""


def quantise(x: torch.Tensor, code_dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Round to the nearest codes, ties to even; the same bits as the kernels that write a cache.

    Args:
        x: [num_tokens, num_kv_heads, head_dim].
        code_dtype: one of `CODE_DTYPES`.

    Returns:
        Codes of x's shape, and float32 scales [num_tokens, num_kv_heads]. A head that holds NaN or
        infinity gets codes of zero and scale NaN: it stays in its place, and shows.
    """
    largest = _LARGEST[code_dtype]
    wide = x.float()
    amax = wide.abs().amax(-1)  # NaN where there is one
    known = amax.clamp_min(_TINY)
    is_finite = amax < torch.inf
    scales = torch.where(is_finite, known / largest, torch.nan)
    inverse = torch.where(is_finite, largest / known, 0.0)
    scaled = (wide * inverse[..., None]).nan_to_num_(nan=0.0).clamp_(-largest, largest)
    scaled += 0.0  # zeros lose their sign
    if code_dtype == torch.int8:
        scaled = scaled.round_()
    return scaled.to(code_dtype), scales


def dequantise(codes: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The numbers that codes [..., head_dim] stand for, with scales [...]; rounded to `dtype`."""
    return (codes.float() * scales[..., None]).to(dtype)
