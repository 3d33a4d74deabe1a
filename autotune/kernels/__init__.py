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
}
"""Name → "module:class", imported when asked for."""


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
