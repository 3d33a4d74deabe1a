"""Block tables of sequences: allocation, sharing, copy-on-write, swapping, the prefix cache.

It decides nothing: the scheduler asks whether something fits and says who gives way. Every verb
that takes blocks either does all of its work or changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from runtime.block_hash import BlockHash, extend_chain
from runtime.block_pool import Block, BlockPool
from runtime.prefix_promises import PrefixPromises
from runtime.sequence import Sequence


class BlockManager:
    """Maps the logical blocks of sequences to a device pool and to a host pool for swapping."""

    def __init__(
        self,
        block_size: int,
        num_blocks: int,
        num_host_blocks: int = 0,
        *,
        enable_prefix_caching: bool = True,
    ) -> None:
        self.block_size = block_size
        self.enable_prefix_caching = enable_prefix_caching
        self.pool = BlockPool(num_blocks)
        self.host_pool = BlockPool(num_host_blocks, num_reserved=0)
        self.num_prefix_queries = 0
        """Tokens looked up in the prefix cache by admitted sequences."""
        self.num_prefix_hits = 0
        """Tokens found there."""
        self._promises = PrefixPromises()
        # The last sequence that did not fit, the free blocks without which it still will not, and
        # the digest whose appearance would change that: a long prompt waits at no cost per step.
        self._refused: tuple[Sequence, int, BlockHash | None] | None = None

    def num_blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold `num_tokens`."""
        return -(-num_tokens // self.block_size)

    def num_missing(self, num_blocks: int) -> int:
        """Blocks lacking of `num_blocks`, once the steps in flight have ended."""
        return max(0, num_blocks - self.pool.num_free - self.pool.num_fenced)

    def cached_prefix(self, sequence: Sequence) -> list[int]:
        """Blocks that hold the longest cached prefix, leaving at least one token to compute.

        A sequence whose prompt log-probabilities are still due computes its whole prompt.
        """
        if not self.enable_prefix_caching:
            return []
        most = self._num_shareable(sequence)
        self._extend_chain(sequence, most)
        found: list[int] = []
        for digest in sequence.block_hashes[:most]:
            block_id = self.pool.find(digest)
            if block_id is None:
                break
            found.append(block_id)
        return found

    def is_promised(self, sequence: Sequence) -> bool:
        """Whether a running sequence is computing the next block of this one's prefix."""
        if not self._promises or sequence.host_table:
            return False
        at = len(self.cached_prefix(sequence))
        return at < self._num_shareable(sequence) and sequence.block_hashes[at] in self._promises

    def num_blocks_needed(self, sequence: Sequence) -> int:
        """Free blocks that `allocate` would use: for all known tokens, less what others hold."""
        prefix = self.cached_prefix(sequence)
        held = sum(1 for block_id in prefix if self.pool.ref_counts[block_id])
        return self.num_blocks_for(len(sequence.token_ids)) - held

    def allocate(
        self, sequence: Sequence, fence: int | None, headroom: int = 0
    ) -> list[tuple[int, int]] | None:
        """Give a sequence without blocks the blocks of all its known tokens, or change nothing.

        Its cached prefix is shared, and counts as computed. What was swapped out is to be swapped
        in for the rest.

        Args:
            sequence: waiting or swapped, with no token in flight.
            fence: the step that performs the swap; host blocks become free after it.
            headroom: blocks that must be left free.

        Returns:
            (host block, device block) pairs to swap in, or None if the blocks do not fit.
        """
        assert not sequence.block_table, f"{sequence} has blocks"
        if self.is_still_refused(sequence):
            return None
        prefix = self.cached_prefix(sequence)
        num_new = self.num_blocks_for(len(sequence.token_ids)) - len(prefix)
        num_revived = sum(1 for block_id in prefix if self.pool.is_free(block_id))
        if num_new + num_revived + headroom > self.pool.num_free:
            hashes = sequence.block_hashes
            missing = hashes[len(prefix)] if len(prefix) < len(hashes) else None
            self._refused = (sequence, num_new, missing)
            return None
        self._refused = None
        if self.enable_prefix_caching:
            num_full = len(sequence.token_ids) // self.block_size
            self._extend_chain(sequence, num_full)
            self._promises.make(sequence, len(prefix), num_full)
        self.pool.share(prefix)
        sequence.block_table = [*prefix, *self.pool.take(num_new)]
        sequence.num_registered_blocks = len(prefix)
        pairs: list[tuple[int, int]] = []
        if sequence.host_table:
            pairs = list(zip(sequence.host_table, sequence.block_table, strict=False))
            pairs = pairs[len(prefix) :]
            self.host_pool.drop(sequence.host_table, fence)
            sequence.host_table = []
        else:
            sequence.num_computed_tokens = len(prefix) * self.block_size
            self.num_prefix_queries += len(sequence.token_ids)
            self.num_prefix_hits += sequence.num_computed_tokens
        return pairs

    def is_still_refused(self, sequence: Sequence) -> bool:
        """Whether `allocate` has refused this sequence, and nothing has changed in its favour."""
        if self._refused is None or self._refused[0] is not sequence:
            return False
        _, num_new, missing = self._refused
        if missing is not None and self.pool.find(missing) is not None:
            return False
        return num_new > self.pool.num_free

    def needs_block(self, sequence: Sequence, position: int) -> bool:
        """Whether writing at `position` takes a free block: a new one, or one to copy to."""
        index = position // self.block_size
        table = sequence.block_table
        return index == len(table) or self.pool.ref_counts[table[index]] > 1

    def append(self, sequence: Sequence, position: int, fence: int) -> tuple[int, int] | None:
        """Make `position`, the next one to write, writable by this sequence alone.

        Args:
            sequence: a running one; where `needs_block` says so, the pool has a free block.
            position: in the last block of the table, or the first after it.
            fence: the step that performs the copy; the source stays untouched until it has ended.

        Returns:
            (source, destination) to copy before the write, or None.
        """
        index = position // self.block_size
        table = sequence.block_table
        if index == len(table):
            table.append(self.pool.take_one())
            return None
        source = table[index]
        if self.pool.ref_counts[source] == 1:
            return None
        table[index] = self.pool.take_one()
        self.pool.drop([source], fence)
        return source, table[index]

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """Let `child` share every block of `parent`, on the device or on the host."""
        assert not child.block_table, f"{child} has blocks"
        assert not child.host_table, f"{child} has host blocks"
        self.pool.share(parent.block_table)
        self.host_pool.share(parent.host_table)
        child.block_table = list(parent.block_table)
        child.host_table = list(parent.host_table)
        child.num_computed_tokens = parent.num_computed_tokens
        child.num_registered_blocks = parent.num_registered_blocks

    def free(self, sequence: Sequence, fence: int | None) -> None:
        """Drop the sequence's blocks; none is given out before step `fence` has ended."""
        self._promises.settle(sequence, sequence.num_registered_blocks)
        self.pool.drop(sequence.block_table, fence)
        self.host_pool.drop(sequence.host_table, fence)
        sequence.block_table = []
        sequence.host_table = []
        sequence.num_registered_blocks = 0

    def swap_out(self, sequence: Sequence, fence: int) -> list[tuple[int, int]] | None:
        """Move the computed blocks to the host, or change nothing.

        Args:
            sequence: a running one with computed tokens.
            fence: the step that performs the copies; the device blocks become free after it.

        Returns:
            (device block, host block) pairs to copy, or None if the host pool is too full.
        """
        computed = sequence.block_table[: self.num_blocks_for(sequence.num_computed_tokens)]
        if not computed or len(computed) > self.host_pool.num_free:
            return None
        host_table = self.host_pool.take(len(computed))
        self.free(sequence, fence)
        sequence.host_table = host_table
        return list(zip(computed, host_table, strict=True))

    def register(self, sequence: Sequence, num_computed_tokens: int) -> None:
        """Make the blocks that ended steps have filled findable by later requests."""
        if not self.enable_prefix_caching:
            return
        num_full = num_computed_tokens // self.block_size
        if num_full > sequence.num_registered_blocks:
            self._extend_chain(sequence, num_full)
            for index in range(sequence.num_registered_blocks, num_full):
                self.pool.register(sequence.block_table[index], sequence.block_hashes[index])
            self._promises.settle(sequence, sequence.num_registered_blocks, num_full)
            sequence.num_registered_blocks = num_full

    def end_step(self, step_id: int) -> None:
        """Free what waited for step `step_id`."""
        self.pool.lift_fences(step_id)
        self.host_pool.lift_fences(step_id)

    def block(self, block_id: int) -> Block:
        """Return what is known about one device block."""
        return self.pool.block(block_id)

    def check_integrity(self, sequences: Collection[Sequence]) -> None:
        """Assert that the counts of both pools are exactly what the tables of `sequences` say."""
        self.pool.check_integrity()
        self.host_pool.check_integrity()
        on_device = Counter(b for s in sequences for b in s.block_table)
        on_host = Counter(b for s in sequences for b in s.host_table)
        for pool, named in ((self.pool, on_device), (self.host_pool, on_host)):
            held = {b: count for b, count in enumerate(pool.ref_counts) if count}
            assert held == dict(named), f"reference counts {held}, tables name {dict(named)}"
        self._promises.check_integrity()
        for sequence in sequences:
            assert not (sequence.block_table and sequence.host_table), f"{sequence} is in both"
            for block_id in sequence.block_table[sequence.num_computed_tokens // self.block_size :]:
                digest = self.pool.block(block_id).block_hash
                assert digest is None, f"{sequence} may write cached block {block_id}"

    def _num_shareable(self, sequence: Sequence) -> int:
        """Full blocks that the sequence could take from the prefix cache."""
        if sequence.host_table:
            return sequence.num_computed_tokens // self.block_size
        params = sequence.request.sampling_params
        if params.prompt_logprobs is not None and sequence.num_output_tokens == 0:
            return 0
        return (len(sequence.token_ids) - 1) // self.block_size

    def _extend_chain(self, sequence: Sequence, num_blocks: int) -> None:
        if num_blocks > len(sequence.block_hashes):
            extend_chain(
                sequence.block_hashes,
                sequence.root_hash,
                sequence.token_ids,
                self.block_size,
                num_blocks,
            )
