"""Muon: momentum, made orthogonal by Newton-Schulz steps (Jordan et al., 2024).

torch.optim.Muon computes in bfloat16, which many a CPU only emulates, and one matrix at a time.
This one stays in float32 and takes all matrices of one shape, or of its transpose, together.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from demo_model.workers import Workers
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_NUM_STEPS = 5


class Muon(torch.optim.Optimizer):
    """For matrices; embeddings, norms and biases belong to AdamW."""

    def __init__(
        self, matrices: Iterable[Tensor], lr: float, workers: Workers, momentum: float = 0.95
    ) -> None:
        super().__init__(list(matrices), {"lr": lr, "momentum": momentum})
        self._workers = workers

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step with the gradients at hand."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[Tensor]] = {}
            for matrix in group["params"]:
                alike.setdefault((min(matrix.shape), max(matrix.shape)), []).append(matrix)
            for matrices in alike.values():
                self._step(matrices, group["lr"], group["momentum"])

    def _step(self, matrices: list[Tensor], lr: float, momentum: float) -> None:
        gradients = torch.stack([_wide(matrix.grad) for matrix in matrices])
        state = self.state[matrices[0]]
        if not state:
            state["average"] = torch.zeros_like(gradients)
        average = state["average"].lerp_(gradients, 1 - momentum)
        updates = self._workers.map(orthogonal, gradients.lerp_(average, momentum))
        for matrix, update in zip(matrices, torch.cat(updates), strict=True):
            num_rows, num_columns = matrix.shape
            # An orthogonal update moves every output by as much, whatever the shape.
            scale = max(1.0, num_rows / num_columns) ** 0.5
            _wide(matrix).add_(update, alpha=-lr * scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices whose singular values are about 1 (0.7 to 1.2).

    Args:
        matrices: [number, rows, columns], no more rows than columns.
    """
    a, b, c = _COEFFICIENTS
    x = matrices / (matrices.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(_NUM_STEPS):
        gram = x @ x.mT  # [number, rows, rows]
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _wide(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
