"""A fixed set of KV blocks: who holds each, which are free, which free ones still hold a prefix.

The pool knows block ids only; which sequence a block belongs to is the block manager's business.
A block is in one of four states: *held* (some tables name it), *fenced* (no table names it, but a
step in flight may still touch it), *cached* (free, yet its content can be found by hash) or *blank*
(free). Blank blocks are given out first, then cached ones, the least recently used first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.block_hash import BlockHash

TRASH_BLOCK = 0
"""Padding rows write here; it is never given out."""


@dataclass(frozen=True, slots=True)
class Block:
    """What the pool knows about one block, for tests and reports."""

    block_id: int
    ref_count: int
    is_free: bool
    is_fenced: bool
    block_hash: BlockHash | None


class BlockPool:
    """Reference counts, fences, prefix hashes and the free lists of `num_blocks` blocks."""

    def __init__(self, num_blocks: int, *, num_reserved: int = 1) -> None:
        self.num_blocks = num_blocks
        self.num_reserved = num_reserved
        self.ref_counts = [0] * num_blocks
        self._num_fences = [0] * num_blocks
        self._hash_of: list[BlockHash | None] = [None] * num_blocks
        self._block_of: dict[BlockHash, int] = {}
        self._blank = deque(range(num_reserved, num_blocks))
        self._cached: OrderedDict[int, None] = OrderedDict()  # free, oldest use first
        self._fenced_by: dict[int, list[int]] = {}  # step id -> block ids
        self.num_fenced = 0
        self.num_evictions = 0

    @property
    def num_usable(self) -> int:
        """Blocks that can be given out when nothing is held."""
        return self.num_blocks - self.num_reserved

    @property
    def num_free(self) -> int:
        """Blocks that can be given out now, cached ones included."""
        return len(self._blank) + len(self._cached)

    @property
    def num_cached(self) -> int:
        """Free blocks whose content can still be found by hash."""
        return len(self._cached)

    def is_free(self, block_id: int) -> bool:
        """Whether the block may be given out now."""
        return (
            block_id >= self.num_reserved
            and self.ref_counts[block_id] == 0
            and self._num_fences[block_id] == 0
        )

    def take_one(self) -> int:
        """Give out one block with one reference; the caller has checked `num_free`."""
        if self._blank:
            block_id = self._blank.popleft()
        else:
            assert self._cached, "a block is taken where none is free"
            block_id, _nothing = self._cached.popitem(last=False)
            self._forget(block_id)
            self.num_evictions += 1
        self.ref_counts[block_id] = 1
        return block_id

    def take(self, count: int) -> list[int]:
        """Give out `count` blocks with one reference each; the caller has checked `num_free`."""
        assert count <= self.num_free, f"{count} blocks asked of {self.num_free} free ones"
        return [self.take_one() for _ in range(count)]

    def share(self, block_ids: Iterable[int]) -> None:
        """Add one reference to each block; a free one is taken out of the cached list."""
        for block_id in block_ids:
            if self.ref_counts[block_id] == 0:
                if self._num_fences[block_id]:
                    self.num_fenced -= 1
                else:
                    del self._cached[block_id]
            self.ref_counts[block_id] += 1

    def drop(self, block_ids: Sequence[int], fence: int | None) -> None:
        """Remove one reference from each block; none becomes free before step `fence` has ended.

        The last blocks are dropped first, so that a prefix is evicted from its end.
        """
        for block_id in reversed(block_ids):
            assert self.ref_counts[block_id] > 0, f"block {block_id} is freed twice"
            if fence is not None:
                self._num_fences[block_id] += 1
                self._fenced_by.setdefault(fence, []).append(block_id)
            self.ref_counts[block_id] -= 1
            if self.ref_counts[block_id] == 0:
                if self._num_fences[block_id]:
                    self.num_fenced += 1
                else:
                    self._set_free(block_id)

    def lift_fences(self, step_id: int) -> None:
        """Step `step_id` has ended: what waited for it alone becomes free."""
        for block_id in self._fenced_by.pop(step_id, ()):
            self._num_fences[block_id] -= 1
            if self._num_fences[block_id] == 0 and self.ref_counts[block_id] == 0:
                self.num_fenced -= 1
                self._set_free(block_id)

    def find(self, digest: BlockHash) -> int | None:
        """Block that holds the content named `digest`, held, fenced or cached."""
        return self._block_of.get(digest)

    def register(self, block_id: int, digest: BlockHash) -> None:
        """Make a full, computed block findable; where the content is known, the first stays."""
        if digest not in self._block_of and self._hash_of[block_id] is None:
            self._block_of[digest] = block_id
            self._hash_of[block_id] = digest

    def forget_cached(self) -> None:
        """Drop every hash: nothing computed so far can be found any more."""
        for block_id in list(self._block_of.values()):
            self._forget(block_id)
        self._blank.extend(self._cached)
        self._cached.clear()

    def block(self, block_id: int) -> Block:
        """Return what is known about one block."""
        return Block(
            block_id=block_id,
            ref_count=self.ref_counts[block_id],
            is_free=self.is_free(block_id),
            is_fenced=self._num_fences[block_id] > 0,
            block_hash=self._hash_of[block_id],
        )

    def free_order(self) -> list[int]:
        """Block ids in the order in which they would be given out."""
        return [*self._blank, *self._cached]

    def check_integrity(self) -> None:
        """Assert that every block is in one state, and that the hash table is a bijection."""
        blank, cached = set(self._blank), set(self._cached)
        assert len(blank) == len(self._blank), "a block is twice in the blank list"
        assert not blank & cached, f"blocks both blank and cached: {blank & cached}"
        free = {b for b in range(self.num_blocks) if self.is_free(b)}
        assert free == blank | cached, f"free lists and counts differ: {free ^ (blank | cached)}"
        held = sum(1 for count in self.ref_counts if count > 0)
        assert len(free) + held + self.num_fenced == self.num_usable, "blocks are missing"
        assert all(self._hash_of[b] is None for b in blank), "a blank block has a hash"
        assert all(self._hash_of[b] is not None for b in cached), "a cached block has no hash"
        hashed = {b: h for b, h in enumerate(self._hash_of) if h is not None}
        assert {h: b for b, h in hashed.items()} == self._block_of, "the hash table is stale"
        fences = [b for blocks in self._fenced_by.values() for b in blocks]
        assert sum(self._num_fences) == len(fences), "fence counts differ from the fences"
        assert all(self.ref_counts[b] == 0 for b in range(self.num_reserved)), "trash is held"

    def _set_free(self, block_id: int) -> None:
        if self._hash_of[block_id] is None:
            self._blank.append(block_id)
        else:
            self._cached[block_id] = None

    def _forget(self, block_id: int) -> None:
        digest = self._hash_of[block_id]
        if digest is not None:
            del self._block_of[digest]
            self._hash_of[block_id] = None
