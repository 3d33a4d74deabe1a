"""The first picks of a search, before a model has anything to learn from."""

from __future__ import annotations

import numpy as np

from autotune.search.candidates import Candidates
from autotune.search.history import History

_DRAWN = 16
"""Random configurations of which the one farthest from all taken is picked."""


def spread(candidates: Candidates, history: History, number: int, rng: np.random.Generator) -> int:
    """Alternate between the prior's favourites and random picks, away from what was taken."""
    unseen = np.flatnonzero(history.unseen)
    if candidates.prior is not None and number % 2 == 0:
        order = unseen[np.argsort(candidates.prior[unseen], kind="stable")]
        drawn = order[: max(8, len(order) // 50)]
    else:
        drawn = rng.choice(unseen, size=min(len(unseen), _DRAWN), replace=False)
    taken = list(history.indices + history.batch)
    if not taken:
        return int(drawn[0])
    positions = candidates.positions
    gaps = np.abs(positions[drawn][:, None, :] - positions[taken][None, :, :]).sum(axis=2)
    return int(drawn[np.argmax(gaps.min(axis=1))])
