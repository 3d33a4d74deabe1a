"""How wide the weights of a product may be."""

from __future__ import annotations

from autotune.errors import UsageError

MOST_FEATURES = 1 << 22
"""Operands and outputs may pass 2^31 elements: where a tile begins is computed in 64 bits. Offsets
inside a tile have 32, which holds for 512 rows of this many numbers."""


def check_extents(n: int, k: int) -> None:
    """Refuse weights [n, k] without elements, and with more features than kernels can address.

    Raises:
        UsageError: `n` or `k` is 0 or above `MOST_FEATURES`.
    """
    if not (n and k):
        raise UsageError(f"n={n}, k={k}: must be at least 1")
    if max(n, k) > MOST_FEATURES:
        raise UsageError(
            f"n={n}, k={k}: at most {MOST_FEATURES} each, since offsets in a tile have 32 bits; "
            "split the matrix"
        )
