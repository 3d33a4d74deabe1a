"""Pinned block tables and reference counts in small scenarios."""

from __future__ import annotations

import pytest

from runtime.block_manager import BlockManager
from runtime.sampling_params import SamplingParams
from runtime.sequence import Request, Sequence


def sequence(*token_ids: int, number: int = 0, **fields: object) -> Sequence:
    request = Request(f"r{number}", token_ids, **fields)  # type: ignore[arg-type]
    return Sequence(request, (0, number, 0), 1000)


def computed(manager: BlockManager, line: Sequence) -> Sequence:
    """Allocate, and act as if the whole prompt had been computed."""
    assert manager.allocate(line, None) == []
    line.num_computed_tokens = len(line.token_ids)
    manager.register(line, line.num_computed_tokens)
    return line


def test_allocation_takes_all_blocks_or_none() -> None:
    manager = BlockManager(4, 4)
    small, large = sequence(*range(1, 6)), sequence(*range(20, 29), number=1)
    assert manager.allocate(large, None, headroom=1) is None
    assert (large.block_table, manager.pool.num_free) == ([], 3)
    assert manager.allocate(small, None) == []
    assert small.block_table == [1, 2]
    assert manager.allocate(large, None) is None
    manager.free(small, None)
    assert manager.allocate(large, None) == []
    assert large.block_table == [3, 2, 1]


def test_a_shared_prefix_is_found_and_counted() -> None:
    manager = BlockManager(4, 10)
    first = computed(manager, sequence(*range(1, 11)))  # blocks 1 2 3; 1 and 2 are full
    second = sequence(*range(1, 9), 50, 51, number=1)
    assert manager.allocate(second, None) == []
    assert second.block_table == [1, 2, 4]
    assert second.num_computed_tokens == 8
    assert [manager.block(b).ref_count for b in (1, 2, 3, 4)] == [2, 2, 1, 1]
    assert (manager.num_prefix_queries, manager.num_prefix_hits) == (20, 8)
    manager.free(first, None)
    assert [manager.block(b).ref_count for b in (1, 2, 3)] == [1, 1, 0]
    manager.check_integrity([second])


def test_a_hit_leaves_one_token_to_compute() -> None:
    manager = BlockManager(4, 10)
    computed(manager, sequence(*range(1, 9)))
    again = sequence(*range(1, 9), number=1)
    manager.allocate(again, None)
    assert again.num_computed_tokens == 4, "of two full blocks only the first may be taken"


def test_prompt_logprobs_make_the_whole_prompt_computed() -> None:
    manager = BlockManager(4, 10)
    computed(manager, sequence(*range(1, 11)))
    params = SamplingParams(prompt_logprobs=0)
    curious = sequence(*range(1, 11), number=1, sampling_params=params)
    manager.allocate(curious, None)
    assert curious.num_computed_tokens == 0


@pytest.mark.parametrize("field", ["cache_salt", "lora_name"])
def test_requests_of_another_salt_or_adapter_share_nothing(field: str) -> None:
    manager = BlockManager(4, 10)
    computed(manager, sequence(*range(1, 11)))
    other = sequence(*range(1, 11), number=1, **{field: "x"})
    manager.allocate(other, None)
    assert other.num_computed_tokens == 0


def test_a_prefix_that_only_hits_free_blocks_still_needs_them_free() -> None:
    manager = BlockManager(4, 5)
    first = computed(manager, sequence(*range(1, 17)))  # all four blocks
    manager.free(first, None)
    second = sequence(*range(1, 17), 9, 9, 9, number=1)
    assert manager.cached_prefix(second) == [1, 2, 3, 4]
    assert manager.allocate(second, None) is None, "four revived blocks and one more do not fit"
    assert manager.pool.num_free == 4


def test_copy_on_write_happens_for_all_writers_but_the_last() -> None:
    manager = BlockManager(4, 10)
    parent = computed(manager, sequence(1, 2, 3, 4, 5))  # blocks 1 2
    one, other = parent.fork(1), parent.fork(2)
    manager.fork(parent, one)
    manager.fork(parent, other)
    assert [manager.block(b).ref_count for b in (1, 2)] == [3, 3]
    assert manager.needs_block(parent, 5)
    assert manager.append(parent, 5, fence=1) == (2, 3)
    assert manager.append(one, 5, fence=1) == (2, 4)
    assert not manager.needs_block(other, 5)
    assert manager.append(other, 5, fence=1) is None
    assert [line.block_table for line in (parent, one, other)] == [[1, 3], [1, 4], [1, 2]]
    manager.check_integrity([parent, one, other])
    manager.free(other, None)
    assert manager.block(2).is_fenced, "the copies may still read it"
    manager.end_step(1)
    assert manager.block(2).is_free


def test_a_swap_round_trip_moves_computed_blocks_only() -> None:
    manager = BlockManager(4, 8, num_host_blocks=4, enable_prefix_caching=False)
    line = sequence(*range(1, 14))
    manager.allocate(line, None)
    line.num_computed_tokens = 6  # two of four blocks hold anything
    assert manager.swap_out(line, fence=3) == [(1, 0), (2, 1)]
    assert (line.block_table, line.host_table) == ([], [0, 1])
    assert manager.pool.num_fenced == 4
    manager.end_step(3)
    assert manager.allocate(line, fence=4) == [(0, 5), (1, 6)]
    assert (line.block_table, line.host_table) == ([5, 6, 7, 4], [])
    assert line.num_computed_tokens == 6
    assert manager.host_pool.num_fenced == 2
    manager.end_step(4)
    assert manager.host_pool.num_free == 4


def test_swapping_in_shares_what_is_still_cached() -> None:
    manager = BlockManager(4, 8, num_host_blocks=4)
    line = computed(manager, sequence(*range(1, 11)))
    assert manager.swap_out(line, fence=1) == [(1, 0), (2, 1), (3, 2)]
    manager.end_step(1)
    assert manager.allocate(line, fence=2) == [(2, 4)], "blocks 1 and 2 were found"
    assert line.block_table == [1, 2, 4]


def test_a_swap_that_does_not_fit_on_the_host_changes_nothing() -> None:
    manager = BlockManager(4, 8, num_host_blocks=1)
    line = computed(manager, sequence(*range(1, 11)))
    assert manager.swap_out(line, fence=1) is None
    assert line.block_table == [1, 2, 3]
    assert manager.host_pool.num_free == 1


def test_a_refused_sequence_is_asked_again_when_its_next_block_is_found() -> None:
    manager = BlockManager(4, 7)
    first = sequence(*range(1, 18))
    manager.allocate(first, None)  # five of six blocks
    second = sequence(*range(1, 10), number=1)
    assert manager.allocate(second, None) is None
    assert manager.is_still_refused(second)
    manager.register(first, 16)
    assert not manager.is_still_refused(second)
    assert manager.allocate(second, None) == []
    assert second.block_table == [1, 2, 6]


def test_check_integrity_sees_a_wrong_count() -> None:
    manager = BlockManager(4, 8)
    line = computed(manager, sequence(1, 2, 3))
    manager.check_integrity([line])
    with pytest.raises(AssertionError, match="tables name"):
        manager.check_integrity([])
