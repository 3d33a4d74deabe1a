"""Rows of random numbers for checks: at a stride, with NaN between them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from autotune.kernels.dtypes import torch_dtype

if TYPE_CHECKING:
    import torch

MARGIN = 16
"""Numbers of NaN after each row, and before the first; keeps the alignment of aligned rows."""


def draw_rows(
    rows: int, columns: int, dtype: str, device: str, generator: torch.Generator
) -> torch.Tensor:
    """Normal numbers [rows, columns] at a row stride of columns + `MARGIN`, NaN in between."""
    import torch

    whole = torch.full((rows + 1, columns + MARGIN), math.nan)
    whole[1:, :columns] = torch.randn((rows, columns), generator=generator)
    return whole.to(torch_dtype(dtype)).to(device)[1:, :columns]


def draw_vector(
    count: int, dtype: str, device: str, generator: torch.Generator, mean: float = 0.0
) -> torch.Tensor:
    """Normal numbers [count] around `mean`, NaN before and after."""
    import torch

    whole = torch.full((count + 2 * MARGIN,), math.nan)
    whole[MARGIN : MARGIN + count] = mean + 0.25 * torch.randn(count, generator=generator)
    return whole.to(torch_dtype(dtype)).to(device)[MARGIN : MARGIN + count]
