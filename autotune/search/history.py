"""What a search has seen when it has to pick."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class History:
    """What a pick may look at."""

    unseen: NDArray[np.bool_]
    indices: tuple[int, ...]
    """Configurations judged before this batch, in order."""
    values: tuple[float | None, ...]
    """Their objective, None for failures; smaller is better."""
    batch: tuple[int, ...]
    """Configurations already picked in this batch."""
    batch_start: int
    seeded: int = 0
    """How many of those judged or in the batch were chosen before the search, like a default."""

    @property
    def best(self) -> int | None:
        """Index of the best configuration so far."""
        judged = [(v, i) for i, v in zip(self.indices, self.values, strict=True) if v is not None]
        return min(judged)[1] if judged else None
