"""The weights of one linear layer, as they were read: plain, quantised, or some of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from autotune.registry import QuantisedLayer


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Matrices of the same inputs that cannot be stored as one; outputs follow each other."""

    parts: tuple[torch.Tensor | QuantisedLayer, ...]


Matrix: TypeAlias = torch.Tensor | QuantisedLayer | Stack
"""[n, k]: a plain tensor, or levels with scales, or rows of either."""


def join(parts: Sequence[torch.Tensor | QuantisedLayer]) -> Matrix:
    """Put the rows of matrices into one, where they are of one kind."""
    if len(parts) == 1:
        return parts[0]
    plain = [part for part in parts if isinstance(part, torch.Tensor)]
    if len(plain) == len(parts):
        whole: torch.Tensor = torch.cat(plain)
        return whole
    layers = [part for part in parts if isinstance(part, QuantisedLayer)]
    joined = QuantisedLayer.joined(layers) if len(layers) == len(parts) else None
    return Stack(tuple(parts)) if joined is None else joined


def num_rows(matrix: torch.Tensor | QuantisedLayer) -> int:
    """Outputs of a layer."""
    rows: int = matrix.shape[0] if isinstance(matrix, torch.Tensor) else matrix.weights.n
    return rows
