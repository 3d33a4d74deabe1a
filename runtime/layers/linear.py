"""Linear layers of weights as the checkpoint has them: plain, quantised, or rows of each."""

from __future__ import annotations

import torch

from autotune.registry import QuantisedLayer
from runtime.activation import gated
from runtime.ops.base import Linear, OperationSet
from runtime.weight_matrix import Matrix, Stack, num_rows


def make_linear(ops: OperationSet, weight: Matrix, bias: torch.Tensor | None) -> Linear:
    """Prepare x W^T + b; weight [n, k], bias [n]."""
    if isinstance(weight, Stack):
        return StackedLinear(ops, weight, bias)
    if isinstance(weight, QuantisedLayer):
        return ops.quantised_linear(weight, bias, None)
    return ops.linear(weight, bias)


def make_gated_linear(
    ops: OperationSet, weight: Matrix, bias: torch.Tensor | None, activation: str
) -> Linear:
    """Prepare activation(gate) * up, where x W^T + b is [gate, up]; weight [2 n, k]."""
    if isinstance(weight, Stack):
        return gated(StackedLinear(ops, weight, bias), activation)
    if isinstance(weight, QuantisedLayer):
        return ops.quantised_linear(weight, bias, activation)
    return ops.gated_linear(weight, bias, activation)


class StackedLinear:
    """Layers of the same inputs that are stored in different ways; outputs side by side."""

    def __init__(self, ops: OperationSet, weight: Stack, bias: torch.Tensor | None) -> None:
        sizes = [num_rows(part) for part in weight.parts]
        biases = [None] * len(sizes) if bias is None else bias.split(sizes)
        self._parts = [
            make_linear(ops, part, one) for part, one in zip(weight.parts, biases, strict=True)
        ]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([part(x) for part in self._parts], dim=1)
