"""The gated product as PyTorch computes it, behind any linear layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from runtime.ops.base import Linear

_ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


def gated(linear: Linear, activation: str) -> Linear:
    """Make activation(gate) * up of a layer whose outputs are [gate, up]."""
    activate = _ACTIVATIONS[activation]

    def call(x: torch.Tensor) -> torch.Tensor:
        gate, up = linear(x).chunk(2, dim=-1)
        return activate(gate).mul_(up)

    return call
