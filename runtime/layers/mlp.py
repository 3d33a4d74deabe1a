"""The gated MLP: down(activation(gate(x)) * up(x))."""

from __future__ import annotations

import torch

from runtime.layers.linear import make_gated_linear, make_linear
from runtime.model_config import ModelConfig
from runtime.ops.base import OperationSet
from runtime.weights import Weights


class GatedMlp:
    """Gate and up as one packed product, with the activation in the same operation."""

    def __init__(
        self, config: ModelConfig, weights: Weights, ops: OperationSet, *, bias: bool = False
    ) -> None:
        size, hidden = config.intermediate_size, config.hidden_size
        gate_up = weights.linear("gate_up_proj", (size, size), hidden, bias=bias)
        down = weights.linear("down_proj", (hidden,), size, bias=bias)
        self._gate_up = make_gated_linear(ops, *gate_up, config.activation)
        self._down = make_linear(ops, *down)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._down(self._gate_up(x))
