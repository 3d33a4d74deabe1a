"""A linear layer over levels as one Triton kernel per number of tokens."""

from __future__ import annotations

import torch

from autotune.registry import QuantisedLayer
from runtime.kernel_table import LaunchTable


class DequantLinear:
    """x W^T + b, of levels in `byte_split`; with an order, of gathered columns of x."""

    def __init__(
        self, table: LaunchTable, layer: QuantisedLayer, bias: torch.Tensor | None
    ) -> None:
        """Run every kernel once, so that no step waits for a compiler.

        Args:
            table: for this shape, by number of tokens.
            layer: [n, k]; scales and zeros have the type of x.
            bias: [n].
        """
        weights = layer.weights
        self._table = table
        self._order = layer.order
        self._bias = bias
        self._n = weights.n
        self._stored = [weights.packed, weights.scales]
        if weights.zeros is not None:
            self._stored.append(weights.zeros)
        one = weights.scales.new_zeros((1, weights.k))
        for launch in table.distinct:
            launch(one.new_empty((1, weights.n)), one, *self._stored)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous() if self._order is None else x.index_select(1, self._order)
        out = x.new_empty((x.shape[0], self._n))
        self._table.at(x.shape[0])(out, x, *self._stored)
        return out if self._bias is None else out.add_(self._bias)
