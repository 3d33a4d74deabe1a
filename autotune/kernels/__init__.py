"""The table of kernels. Adding one: a template, a spec file here, and a row."""

from __future__ import annotations

import importlib
from typing import Any

from autotune.errors import UnknownChoiceError
from autotune.kernels.spec import KernelSpec

KERNELS = {
    "dequant_gemm": "autotune.kernels.dequant_gemm:DequantGemm",
    "fused_mlp": "autotune.kernels.fused_mlp:FusedMlp",
    "paged_attention_decode": "autotune.kernels.paged_attention_decode:PagedAttentionDecode",
    "paged_attention_prefill": "autotune.kernels.paged_attention_prefill:PagedAttentionPrefill",
    "quantize_per_token": "autotune.kernels.quantize_per_token:QuantizePerToken",
    "rms_norm": "autotune.kernels.rms_norm:RmsNorm",
    "rope_kv_write": "autotune.kernels.rope_kv_write:RopeKvWrite",
}
"""Name → "module:class", imported when asked for."""

COMPANIONS = ("quantize_per_token", "rms_norm", "rope_kv_write")
"""Searched only where they are named: a few knobs, and little that they could gain."""


def searched_kernels() -> tuple[str, ...]:
    """Kernels that a search takes where none is named."""
    return tuple(name for name in KERNELS if name not in COMPANIONS)


def load_kernel(name: str) -> KernelSpec[Any]:
    """Return the spec of that name.

    Raises:
        UnknownChoiceError: no such kernel.
    """
    if name not in KERNELS:
        raise UnknownChoiceError("kernel", name, KERNELS)
    module, _, attribute = KERNELS[name].partition(":")
    spec: KernelSpec[Any] = getattr(importlib.import_module(module), attribute)()
    return spec
