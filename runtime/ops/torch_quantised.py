"""Quantised linear layers on CPUs: levels in panels for the C kernels, else plain numbers."""

from __future__ import annotations

import torch

from autotune.registry import QuantisedLayer
from runtime.ops.torch_library import CpuKernels, PackedLinear
from runtime.ops.torch_pack import Activation, Format, in_panels


class QuantisedCpuLinear:
    """x W^T + b, or activation(x G^T) * (x U^T), in float32, of weights (q - zero) * scale.

    Levels are widened to those very numbers in the cache, a chunk at a time. Only where one scale
    serves a whole output, of eight bits and without a zero, it multiplies the sum instead.
    """

    def __init__(
        self,
        kernels: CpuKernels,
        layer: QuantisedLayer,
        bias: torch.Tensor | None,
        activation: Activation = Activation.NONE,
    ) -> None:
        """Copy levels, scales and zeros into panels: the caller's may be freed.

        Args:
            kernels: of float32.
            layer: [n, k]; with an activation [2 n, k], the gate's rows first.
            bias: [n] or [2 n].
            activation: of the gate.
        """
        num_parts = 1 if activation is Activation.NONE else 2
        weights = layer.weights
        self._kernels = kernels
        self._order = layer.order
        self._bias = None if bias is None else bias.float().contiguous()
        levels = layer.levels()  # [num_parts * n, k]
        is_plain = weights.bits == 8 and weights.zeros is None and len(weights.scales) == 1
        if is_plain:
            levels = (levels ^ 128).view(torch.int8)  # level - 128
        panels = in_panels(kernels, levels, num_parts)
        self._panels = _two_a_byte(panels) if weights.bits == 4 else panels
        self._scales = in_panels(kernels, weights.scales.T.float(), num_parts)
        self._zeros: torch.Tensor | None = None
        if weights.zeros is not None:
            self._zeros = in_panels(kernels, weights.zeros.T.to(torch.uint8), num_parts)
        format_of = {4: Format.UINT4, 8: Format.INT8 if is_plain else Format.UINT8}
        self._packed = PackedLinear(
            self._panels.data_ptr(),
            self._scales.data_ptr(),
            None if self._zeros is None else self._zeros.data_ptr(),
            None if self._bias is None else self._bias.data_ptr(),
            weights.k,
            weights.n // num_parts,
            weights.group_size or weights.k,
            format_of[weights.bits],
            activation,
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        gathered = x if self._order is None else x.index_select(1, self._order)
        return self._kernels.linear(self._packed, gathered.float()).to(x.dtype)


def dense_weight(layer: QuantisedLayer) -> torch.Tensor:
    """The weights as plain numbers [n, k] of the scales' type, for products that know no levels.

    float32 holds them exactly where scales were fp16 or bf16 in the checkpoint.
    """
    return layer.dense().to(layer.weights.scales.dtype)


def _two_a_byte(panels: torch.Tensor) -> torch.Tensor:
    """uint8 [..., columns], below 16, to [..., columns / 2]: column j low, j + half high."""
    low, high = panels.chunk(2, dim=-1)
    return (low | (high << 4)).contiguous()
