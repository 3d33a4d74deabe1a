"""A linear layer of 4 or 8 bits in the layout of the kernels, wherever it comes from.

What an engine needs to see of the importers: it reads tensors and sizes, and gets one of these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotune.kernels.awq import import_awq
from autotune.kernels.byte_split import QuantisedWeights, dequantise, quantise, unpack
from autotune.kernels.gptq import import_gptq

if TYPE_CHECKING:
    import torch

_ROWS_AT_ONCE = 1024
"""Of a matrix that is rounded: in between it takes several fp64 copies of them."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantisedLayer:
    """Weights [n, k], and the order in which they take the inputs: out = kernel(x[:, order])."""

    weights: QuantisedWeights
    order: torch.Tensor | None = None
    """int64 [k]; None for inputs as they come."""

    @classmethod
    def from_gptq(
        cls,
        qweight: torch.Tensor,
        qzeros: torch.Tensor,
        scales: torch.Tensor,
        g_idx: torch.Tensor | None,
        *,
        group_size: int,
        bits: int,
        checkpoint_format: str,
        dtype: torch.dtype,
    ) -> QuantisedLayer:
        """Take a layer of a GPTQ checkpoint; arguments and errors as `import_gptq`."""
        found = import_gptq(
            qweight,
            qzeros,
            scales,
            g_idx,
            group_size=group_size,
            bits=bits,
            checkpoint_format=checkpoint_format,
            dtype=dtype,
        )
        return cls(found.weights, found.order)

    @classmethod
    def from_awq(
        cls,
        qweight: torch.Tensor,
        qzeros: torch.Tensor,
        scales: torch.Tensor,
        *,
        group_size: int,
        dtype: torch.dtype,
    ) -> QuantisedLayer:
        """Take a layer of an AWQ checkpoint; arguments and errors as `import_awq`."""
        return cls(import_awq(qweight, qzeros, scales, group_size=group_size, dtype=dtype))

    @classmethod
    def rounded(
        cls, weight: torch.Tensor, *, bits: int, group_size: int, zero_point: bool
    ) -> QuantisedLayer:
        """Round [n, k] to the nearest levels; arguments and errors as `byte_split.quantise`."""
        parts = weight.split(_ROWS_AT_ONCE)
        joined = cls.joined([cls(quantise(part, bits, group_size, zero_point)) for part in parts])
        assert joined is not None, "rows that were rounded alike"
        return joined

    @classmethod
    def joined(cls, layers: Sequence[QuantisedLayer]) -> QuantisedLayer | None:
        """Put layers of the same inputs into one, outputs in their order; None if they differ.

        They must have the same bits, groups and order, as have layers that were quantised together.
        """
        import torch

        first = layers[0].weights
        if len(layers) == 1:
            return layers[0]
        if not all(_same_layout(layers[0], layer) for layer in layers):
            return None
        parts = [layer.weights for layer in layers]
        has_zeros = any(part.zeros is not None for part in parts)
        return cls(
            dataclasses.replace(
                first,
                packed=torch.cat([part.packed for part in parts], dim=1),
                scales=torch.cat([part.scales for part in parts], dim=1),
                zeros=torch.cat([_zeros(part) for part in parts], dim=1) if has_zeros else None,
                n=sum(part.n for part in parts),
            ),
            layers[0].order,
        )

    def levels(self) -> torch.Tensor:
        """uint8 [n, k]; columns are those of the gathered inputs."""
        return unpack(self.weights.packed, self.weights.bits, self.weights.k)

    def dense(self) -> torch.Tensor:
        """The weights in fp64 [n, k]; columns are those of the inputs as they come."""
        import torch

        weights = dequantise(self.weights)
        return weights if self.order is None else weights[:, torch.argsort(self.order)]


def _same_layout(one: QuantisedLayer, other: QuantisedLayer) -> bool:
    import torch

    def layout(layer: QuantisedLayer) -> tuple[object, ...]:
        weights = layer.weights
        return weights.bits, weights.group_size, weights.k, weights.scales.dtype

    if layout(one) != layout(other):
        return False
    if one.order is None or other.order is None:
        return one.order is other.order
    return bool(torch.equal(one.order, other.order))


def _zeros(weights: QuantisedWeights) -> torch.Tensor:
    if weights.zeros is not None:
        return weights.zeros
    import torch

    return torch.full_like(weights.scales, float(1 << (weights.bits - 1)))
