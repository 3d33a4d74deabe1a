"""The first picks of a search, before a model has anything to learn from."""

from __future__ import annotations

import numpy as np

from autotune.search.candidates import Candidates
from autotune.search.history import History


def spread(
    candidates: Candidates, history: History, number: int, rng: np.random.Generator, draws: int
) -> int:
    """Alternate between the prior's favourites and `draws` random picks, away from what was taken.

    Of those on offer, the one farthest from all taken is returned.
    """
    unseen = np.flatnonzero(history.unseen)
    if candidates.prior is not None and number % 2 == 0:
        order = unseen[np.argsort(candidates.prior[unseen], kind="stable")]
        drawn = order[: max(8, len(order) // 50)]
    else:
        drawn = rng.choice(unseen, size=min(len(unseen), draws), replace=False)
    taken = list(history.indices + history.batch)
    if not taken:
        return int(drawn[0])
    positions = candidates.positions
    gaps = np.abs(positions[drawn][:, None, :] - positions[taken][None, :, :]).sum(axis=2)
    return int(drawn[np.argmax(gaps.min(axis=1))])
