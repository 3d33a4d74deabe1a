"""A layer's attention as the kernels' problem: its exact axes, or why it is none."""

from __future__ import annotations

import math
from typing import Any

from runtime.ops.base import AttentionSpec

_SMALLEST_HEAD = 9
"""Head dims are padded to a power of two, and matrix instructions need 16."""


def attention_axes(
    dtype: str, kv_dtype: str, spec: AttentionSpec, block_size: int, max_model_len: int
) -> dict[str, Any]:
    """Exact axes of a layer's attention; a window that no sequence outgrows is none."""
    is_windowed = spec.window is not None and spec.window < max_model_len
    # A cache of ours has its scales by token and head.
    codes = {} if kv_dtype == "auto" else {"kv_dtype": kv_dtype, "kv_scale": "token"}
    return {
        "dtype": dtype,
        "head_dim": spec.head_dim,
        "group": spec.group,
        "block_size": block_size,
        "window": spec.window if is_windowed else 0,
        "softcap": spec.softcap or 0.0,
        **codes,
    }


def why_not(spec: AttentionSpec) -> str | None:
    """Why the attention kernels cannot serve such layers, None if they can."""
    if spec.head_dim < _SMALLEST_HEAD:
        return f"head_dim {spec.head_dim} is below {_SMALLEST_HEAD}, the least that is padded to 16"
    if not (spec.scale > 0 and math.isfinite(spec.scale)):
        return f"the scale {spec.scale} is not above 0, and the running maximum is taken before it"
    return None
