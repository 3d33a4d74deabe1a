"""Linear layers on the C kernels: weights in panels, stored in the narrowest type that is exact."""

from __future__ import annotations

from enum import IntEnum

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from runtime.ops.torch_library import CpuKernels, PackedLinear


class Format(IntEnum):
    """How weights are stored; `enum format` of linear.c."""

    FP32 = 0
    BF16 = 1
    INT8 = 2
    UINT4 = 3
    UINT8 = 4


class Activation(IntEnum):
    """What is applied to the gate; `enum activation` of linear.c."""

    NONE = 0
    SILU = 1
    GELU_TANH = 2


FUSED_ACTIVATIONS = {"silu": Activation.SILU, "gelu_tanh": Activation.GELU_TANH}
"""Activations that the product of gate and up can end with."""


class CpuLinear:
    """x W^T + b, or activation(x G^T) * (x U^T), in float32 whatever the weights are stored in.

    Weights that bf16 holds exactly, as those of a bf16 checkpoint, are stored in bf16 and widened
    in the cache: half the memory and half the traffic, and the same result.
    """

    def __init__(
        self,
        kernels: CpuKernels,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        activation: Activation = Activation.NONE,
    ) -> None:
        """Copy the weight into panels: the caller's may be freed.

        Args:
            kernels: of float32.
            weight: [n, k]; with an activation [2 n, k], the gate's rows first.
            bias: [n] or [2 n].
            activation: of the gate.
        """
        num_parts = 1 if activation is Activation.NONE else 2
        self._kernels = kernels
        self._panels = in_panels(kernels, _narrowest(weight), num_parts)
        self._bias = None if bias is None else bias.float().contiguous()
        is_narrow = self._panels.dtype == torch.bfloat16
        self._packed = PackedLinear(
            self._panels.data_ptr(),
            None,
            None,
            None if self._bias is None else self._bias.data_ptr(),
            weight.shape[1],
            weight.shape[0] // num_parts,
            0,
            Format.BF16 if is_narrow else Format.FP32,
            activation,
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._kernels.linear(self._packed, x.float()).to(x.dtype)


def in_panels(kernels: CpuKernels, rows: torch.Tensor, num_parts: int) -> torch.Tensor:
    """[num_parts * n, k] -> [panels of n, num_parts, k, columns], padded with zeros."""
    columns = kernels.tile_columns
    parts = rows.reshape(num_parts, -1, rows.shape[1])
    num_panels = -(-parts.shape[1] // columns)
    shape = (num_panels, num_parts, rows.shape[1], columns)
    panels = torch.empty(shape, dtype=rows.dtype)
    kernels.advise(panels.data_ptr(), panels.nbytes)
    padded = F.pad(parts, (0, 0, 0, num_panels * columns - parts.shape[1]))
    panels.copy_(padded.view(num_parts, num_panels, columns, -1).permute(1, 0, 3, 2))
    return panels


def _narrowest(weight: torch.Tensor) -> torch.Tensor:
    """In bf16 where that is exact, else in float32."""
    narrow = weight.to(torch.bfloat16)
    return narrow if torch.equal(narrow.to(weight.dtype), weight) else weight.float()
