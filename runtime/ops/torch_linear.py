"""Linear layers on CPUs: weights laid out for oneDNN once, where this build of PyTorch has it.

Which types a CPU multiplies natively decides what a checkpoint is best computed in: where bf16 is
emulated, a product takes several times as long as in fp32, and fp32 holds every bf16 number.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from runtime.ops.base import Linear
from runtime.ops.torch_library import CpuKernels
from runtime.ops.torch_pack import CpuLinear

_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

_TYPICAL_ROWS = 32
"""Rows of a decode step that oneDNN lays the weights out for; others work as well."""


def native_dtypes() -> frozenset[str]:
    """Types whose products this CPU does not emulate."""
    found = {"fp32"}
    if torch.backends.mkldnn.is_available():
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():
            found.add("bf16")
        if torch.ops.mkldnn._is_mkldnn_fp16_supported():
            found.add("fp16")
    return frozenset(found)


def prepare_linear(
    weight: torch.Tensor, bias: torch.Tensor | None, kernels: CpuKernels | None
) -> Linear:
    """Prepare x W^T + b; weight [n, k], bias [n].

    The weight is copied into oneDNN's layout where the CPU multiplies its type natively, and into
    that of our own kernels for float32, which they multiply faster below 64 rows: the caller's may
    be freed.

    Args:
        weight: in the type that activations have.
        bias: the same.
        kernels: of float32, where they could be built.
    """
    if uses_kernels(weight, kernels):
        assert kernels is not None
        return CpuLinear(kernels, weight, bias)
    if not _can_pack(weight):
        return partial(F.linear, weight=weight, bias=bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, _TYPICAL_ROWS)
    multiply = torch.ops.mkldnn._linear_pointwise

    def call(x: torch.Tensor) -> torch.Tensor:
        return multiply(x, packed, bias, "none", [], "")

    return call


def uses_kernels(weight: torch.Tensor, kernels: CpuKernels | None) -> bool:
    """Whether a layer of this weight runs on our own kernels."""
    if kernels is None or weight.device.type != "cpu":
        return False
    return weight.dtype == torch.float32 or _NAMES[weight.dtype] not in native_dtypes()


def _can_pack(weight: torch.Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and _NAMES[weight.dtype] in native_dtypes()
    )
