"""Root mean square norms (Zhang and Sennrich, 2019)."""

from __future__ import annotations

import torch

from runtime.ops.base import OperationSet
from runtime.weights import Weights


class RMSNorm:
    """x / rms(x) * weight over the last dimension.

    `offset` is added to the weight, and the product then taken in float32, as Gemma does.
    """

    def __init__(
        self, weights: Weights, size: int, eps: float, ops: OperationSet, offset: float = 0.0
    ) -> None:
        if offset:
            self.weight = weights.tensor("weight", (size,), torch.float32) + offset
        else:
            self.weight = weights.tensor("weight", (size,))
        self._eps = eps
        self._ops = ops

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._ops.rms_norm(x, self.weight, self._eps)

    def add(
        self, x: torch.Tensor, residual: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Norm of x + residual, and that sum; without a residual, of x, and x."""
        if residual is None:
            return self(x), x
        return self._ops.add_rms_norm(x, residual, self.weight, self._eps)
