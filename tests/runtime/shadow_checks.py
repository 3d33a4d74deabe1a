"""What must hold of pools, batches and the prefix cache, counted anew from the outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from runtime.batch import ScheduledBatch
from runtime.block_pool import BlockPool
from runtime.scheduler_config import SchedulerConfig
from runtime.sequence import Sequence


def check_pool(
    pool: BlockPool, tables: Collection[list[int]], touched: Collection[set[int]]
) -> None:
    """Free + held + fenced = the pool; counts = tables; nothing free that a step may touch."""
    named = Counter(block_id for table in tables for block_id in table)
    held = {block_id: count for block_id, count in enumerate(pool.ref_counts) if count}
    assert held == dict(named), f"references {held}, tables name {dict(named)}"
    free = pool.free_order()
    assert len(free) == len(set(free)), "a block is free twice"
    assert not named.keys() & set(free), "a block is free and held"
    assert len(free) + len(held) + pool.num_fenced == pool.num_usable, "blocks are lost"
    in_use = set().union(*touched)
    assert not in_use & set(free), "a block is free before its step has ended"


def check_prefix_cache(
    pool: BlockPool, slots: Mapping[int, int], block_size: int, content: Mapping[bytes, int]
) -> None:
    """Every hash that can be found names the history at the end of its block."""
    for block_id in range(pool.num_blocks):
        digest = pool.block(block_id).block_hash
        if digest is not None:
            found = slots.get((block_id + 1) * block_size - 1)
            assert found == content[digest], f"block {block_id} has a stale hash"


def check_batch(batch: ScheduledBatch, config: SchedulerConfig) -> None:
    """The batch keeps to its limits, and no block is written by two of its sequences."""
    assert batch.num_tokens <= config.max_num_batched_tokens, "the token budget is exceeded"
    assert len(batch.sequences) <= config.max_num_seqs, "there are more sequences than seats"
    assert len(set(batch.sequences)) == len(batch.sequences), "a sequence is scheduled twice"
    assert batch.counts[: batch.num_decodes] == [1] * batch.num_decodes
    writer: dict[int, Sequence] = {}
    at = 0
    for sequence, count in zip(batch.sequences, batch.counts, strict=True):
        assert not sequence.is_finished, f"{sequence} is scheduled after its end"
        for slot in batch.slot_mapping[at : at + count]:
            first = writer.setdefault(slot // config.block_size, sequence)
            assert first is sequence, "two write a block"
        at += count
