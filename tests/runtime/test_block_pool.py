"""Pinned block ids, fences and eviction order of the pool."""

from __future__ import annotations

import pytest

from runtime.block_pool import BlockPool


def test_the_trash_block_is_never_given_out() -> None:
    pool = BlockPool(4)
    assert pool.take(3) == [1, 2, 3]
    assert pool.num_free == 0
    with pytest.raises(AssertionError, match="of 0 free ones"):
        pool.take(1)


def test_cached_blocks_are_evicted_last_and_the_least_recently_used_first() -> None:
    pool = BlockPool(7)
    first, second = pool.take(2), pool.take(2)  # 1 2, 3 4; 5 6 stay blank
    for block_id in (*first, *second):
        pool.register(block_id, bytes([block_id]))
    pool.drop(second, None)
    pool.drop(first, None)
    # Within a sequence the end goes first, so that what is left is still a prefix.
    assert pool.free_order() == [5, 6, 4, 3, 2, 1]
    pool.share([3])
    pool.drop([3], None)  # used again: it goes to the back
    assert pool.free_order() == [5, 6, 4, 2, 1, 3]
    assert pool.take(3) == [5, 6, 4]
    assert pool.find(bytes([4])) is None, "the hash is dropped when the block is given out"
    assert pool.find(bytes([3])) == 3
    assert pool.num_evictions == 1
    pool.check_integrity()


def test_the_first_writer_of_a_content_stays() -> None:
    pool = BlockPool(4)
    one, other, _ = pool.take(3)
    pool.register(one, b"same")
    pool.register(other, b"same")
    assert pool.find(b"same") == one
    pool.drop([other], None)
    assert pool.free_order() == [other], "the duplicate is blank"
    pool.check_integrity()


def test_a_fenced_block_is_free_only_after_its_step() -> None:
    pool = BlockPool(4)
    held = pool.take(2)
    pool.drop(held, fence=7)
    assert (pool.num_free, pool.num_fenced) == (1, 2)
    pool.lift_fences(6)
    assert pool.num_fenced == 2
    pool.lift_fences(7)
    assert (pool.free_order(), pool.num_fenced) == ([3, 2, 1], 0)


def test_a_fenced_block_can_be_found_again_and_keeps_its_fence() -> None:
    pool = BlockPool(3)
    (block_id,) = pool.take(1)
    pool.register(block_id, b"prefix")
    pool.drop([block_id], fence=1)
    pool.share([block_id])
    assert pool.num_fenced == 0
    pool.lift_fences(1)
    assert pool.block(block_id).ref_count == 1
    assert not pool.is_free(block_id)
    pool.check_integrity()


def test_forgetting_the_cache_keeps_what_is_held() -> None:
    pool = BlockPool(4)
    kept, dropped = pool.take(2)
    pool.register(kept, b"k")
    pool.register(dropped, b"d")
    pool.drop([dropped], None)
    pool.forget_cached()
    assert pool.find(b"k") is pool.find(b"d") is None
    assert pool.free_order() == [3, dropped]
    pool.check_integrity()


def test_freeing_twice_is_an_error() -> None:
    pool = BlockPool(3)
    (block_id,) = pool.take(1)
    pool.drop([block_id], None)
    with pytest.raises(AssertionError, match="freed twice"):
        pool.drop([block_id], None)
