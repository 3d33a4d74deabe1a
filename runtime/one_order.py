"""One order of summation for all sizes of an operation, so that batches change no bit."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping

from autotune.registry import Resolved, TunedKernels


def in_one_order(tuned: TunedKernels, entries: Mapping[int, Resolved]) -> dict[int, Resolved]:
    """Keep the order of summation that serves most sizes; the others take the nearest size's.

    Args:
        tuned: what the entries were resolved by, as repeatable.
        entries: by size, ascending; not empty.
    """
    orders = {size: tuned.reduction_order(entry) for size, entry in entries.items()}
    order, _ = Counter(orders.values()).most_common(1)[0]
    agreeing = [size for size in entries if orders[size] == order]

    def serving(size: int) -> Resolved:
        nearest = min(agreeing, key=lambda other: abs(math.log2(other / size)))
        entry = entries[nearest]
        if nearest == size:
            return entry
        return dataclasses.replace(entry, source=f"{entry.source}, for one order of sums")

    return {size: serving(size) for size in entries}
