"""How many key tiles the programs of a causal attention kernel go through, counted exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class CausalWalk:
    """What the programs of one sequence and one KV head go through."""

    steps: int
    """Tiles, over all programs."""
    longest: int
    """Tiles of the longest program."""
    tokens: int
    """Keys loaded, over all programs."""

    @classmethod
    def of(cls, query_len: int, context_len: int, window: int, block_q: int, tile: int) -> Self:
        """Count for programs of `block_q` queries each, walking over tiles of `tile` keys.

        The queries are the newest of `context_len` tokens. `window` is what a query sees, itself
        included; 0 for all. Takes logarithmic time: it is asked for every candidate and point.
        """
        if query_len == 0:
            return cls(0, 0, 0)
        before = context_len - query_len
        whole = math.ceil(query_len / block_q) - 1  # all blocks but the last, which may end early
        # Block b ends at key before + (b + 1) * block_q.
        end_tiles = _sum_floor(whole, block_q, before + block_q + tile - 1, tile)
        end_tiles += math.ceil(context_len / tile)
        ends = whole * before + block_q * whole * (whole + 1) // 2 + context_len
        if not window:
            return cls(end_tiles, math.ceil(context_len / tile), ends)
        # Block b starts in the tile of key b * block_q - lag, once that is positive.
        lag = window - 1 - before
        cut = min(whole + 1, max(0, math.ceil(lag / block_q)))
        first_tiles = _sum_floor(whole + 1 - cut, block_q, cut * block_q - lag, tile)
        # Longest is the last block of whole length, or the last: where tiles fall repeats after
        # `tile` blocks, so the newest of those decide.
        longest = 0
        for block in range(max(0, whole - tile), whole + 1):
            first = max(0, block * block_q - lag) // tile
            end = min(before + (block + 1) * block_q, context_len)
            longest = max(longest, math.ceil(end / tile) - first)
        return cls(end_tiles - first_tiles, longest, ends - first_tiles * tile)


def pairs_seen(query_len: int, context_len: int, window: int) -> int:
    """Query-key pairs of one sequence that causality and the window (0 for none) leave."""
    pairs = query_len * context_len - query_len * (query_len - 1) // 2
    if window:
        # The query at position p loses the p + 1 - window keys before its window.
        most = max(0, context_len - window)
        least = max(0, context_len - query_len - window)
        pairs -= (most * (most + 1) - least * (least + 1)) // 2
    return pairs


def _sum_floor(count: int, step: int, offset: int, divisor: int) -> int:
    """Sum of (offset + step * i) // divisor for i below count, after Euclid's algorithm."""
    if count <= 0:
        return 0
    total = count * (count - 1) // 2 * (step // divisor) + count * (offset // divisor)
    step, offset = step % divisor, offset % divisor
    top = offset + step * count
    if top >= divisor:
        total += _sum_floor(top // divisor, divisor, top % divisor, step)
    return total
