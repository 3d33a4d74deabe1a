"""Bugs to plant into the core, each of a kind that real engines have shipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

import runtime.sequence
from runtime.batch import ScheduledBatch
from runtime.block_hash import root_hash
from runtime.block_manager import BlockManager
from runtime.block_pool import BlockPool
from runtime.planner import StepPlanner
from runtime.prefix_promises import PrefixPromises
from runtime.roster import Roster
from runtime.scheduler import Scheduler
from runtime.sequence import Sequence as Line

Plant = Callable[[pytest.MonkeyPatch], None]


def skip_a_reference(patch: pytest.MonkeyPatch) -> None:
    original = BlockPool.share

    def share(self: BlockPool, block_ids: Iterable[int]) -> None:
        original(self, list(block_ids)[1:])

    patch.setattr(BlockPool, "share", share)


def free_before_the_step_has_ended(patch: pytest.MonkeyPatch) -> None:
    original = BlockPool.drop

    def drop(self: BlockPool, block_ids: Sequence[int], fence: int | None) -> None:
        original(self, block_ids, None)

    patch.setattr(BlockPool, "drop", drop)


def free_twice(patch: pytest.MonkeyPatch) -> None:
    original = BlockManager.free

    def free(self: BlockManager, sequence: Line, fence: int | None) -> None:
        table = list(sequence.block_table)
        original(self, sequence, fence)
        sequence.block_table = table

    patch.setattr(BlockManager, "free", free)


def keep_the_hash_of_a_reused_block(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BlockPool, "_forget", lambda self, block_id: None)


def move_decode_slots_by_one(patch: pytest.MonkeyPatch) -> None:
    original = StepPlanner._grow

    def grow(self: StepPlanner, sequence: Line, position: int, batch: ScheduledBatch) -> bool:
        grown = original(self, sequence, position, batch)
        sequence.slot_offset += 1
        return grown

    patch.setattr(StepPlanner, "_grow", grow)


def move_chunk_slots_by_one(patch: pytest.MonkeyPatch) -> None:
    original = ScheduledBatch.add_chunk

    def add_chunk(self: ScheduledBatch, sequence: Line, count: int, block_size: int) -> None:
        original(self, sequence, count, block_size)
        self.slot_mapping[-1] += 1

    patch.setattr(ScheduledBatch, "add_chunk", add_chunk)


def write_shared_blocks_in_place(patch: pytest.MonkeyPatch) -> None:
    def needs_block(self: BlockManager, sequence: Line, position: int) -> bool:
        return position // self.block_size == len(sequence.block_table)

    patch.setattr(BlockManager, "needs_block", needs_block)


def forget_the_copy(patch: pytest.MonkeyPatch) -> None:
    original = BlockManager.append

    def append(self: BlockManager, sequence: Line, position: int, fence: int) -> None:
        original(self, sequence, position, fence)

    patch.setattr(BlockManager, "append", append)


def hash_what_is_not_computed_yet(patch: pytest.MonkeyPatch) -> None:
    original = BlockManager.allocate

    def allocate(self: BlockManager, sequence: Line, *rest: Any) -> Any:
        pairs = original(self, sequence, *rest)
        if pairs is not None:
            self.register(sequence, len(sequence.token_ids))
        return pairs

    patch.setattr(BlockManager, "allocate", allocate)


def leave_the_salt_out_of_the_hash(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runtime.sequence, "root_hash", lambda extra_keys: root_hash())


def leave_the_tag_out_of_the_hash(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        runtime.sequence,
        "root_hash",
        lambda extra_keys: root_hash([(str(i), v) for i, (_, v) in enumerate(extra_keys)]),
    )


def swap_out_too_little(patch: pytest.MonkeyPatch) -> None:
    original = BlockManager.swap_out

    def swap_out(self: BlockManager, sequence: Line, fence: int) -> Any:
        pairs = original(self, sequence, fence)
        return pairs if pairs is None else pairs[:-1]

    patch.setattr(BlockManager, "swap_out", swap_out)


def swap_in_to_the_wrong_place(patch: pytest.MonkeyPatch) -> None:
    original = BlockManager.allocate

    def allocate(self: BlockManager, sequence: Line, *rest: Any) -> Any:
        pairs = original(self, sequence, *rest)
        return pairs and list(zip([h for h, _ in pairs], [d for _, d in pairs][::-1], strict=True))

    patch.setattr(BlockManager, "allocate", allocate)


def resume_while_a_step_is_in_flight(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Roster, "may_resume", lambda self, sequence: True)


def recompute_from_the_middle(patch: pytest.MonkeyPatch) -> None:
    original = BlockManager.allocate

    def allocate(self: BlockManager, sequence: Line, *rest: Any) -> Any:
        pairs = original(self, sequence, *rest)
        if pairs is not None and sequence.num_preemptions and sequence.num_computed_tokens == 0:
            sequence.num_computed_tokens = len(sequence.token_ids) - 1
        return pairs

    patch.setattr(BlockManager, "allocate", allocate)


def restart_the_random_counter(patch: pytest.MonkeyPatch) -> None:
    original = ScheduledBatch.output_indices

    def output_indices(self: ScheduledBatch) -> list[int]:
        indices = original(self)
        return [
            0 if sequence.num_preemptions else index
            for index, sequence in zip(indices, self.samples, strict=True)
        ]

    patch.setattr(ScheduledBatch, "output_indices", output_indices)


def forget_table_updates(patch: pytest.MonkeyPatch) -> None:
    original = Scheduler.schedule

    def schedule(self: Scheduler) -> ScheduledBatch:
        batch = original(self)
        batch.table_updates.clear()
        return batch

    patch.setattr(Scheduler, "schedule", schedule)


def forget_the_rows_of_forks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Roster, "take_new_rows", lambda self: [])


def never_preempt(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StepPlanner, "_next_victim", lambda self, sequence: None)


def let_parked_beams_keep_their_blocks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StepPlanner, "_parked_victim", lambda self: None)


def hit_the_whole_prompt(patch: pytest.MonkeyPatch) -> None:
    original = BlockManager.cached_prefix

    def cached_prefix(self: BlockManager, sequence: Line) -> list[int]:
        known = sequence.token_ids
        sequence.token_ids = [*known, 1]
        found = original(self, sequence)
        sequence.token_ids = known
        del sequence.block_hashes[len(known) // self.block_size :]
        return found

    patch.setattr(BlockManager, "cached_prefix", cached_prefix)


def promise_what_was_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PrefixPromises, "settle", lambda self, sequence, first, end=None: None)


def lose_a_finished_sequence(patch: pytest.MonkeyPatch) -> None:
    original = BlockManager.free

    def free(self: BlockManager, sequence: Line, fence: int | None) -> None:
        sequence.block_table = sequence.block_table[:-1]
        original(self, sequence, fence)

    patch.setattr(BlockManager, "free", free)


PLANTS: tuple[Plant, ...] = (
    skip_a_reference,
    free_before_the_step_has_ended,
    free_twice,
    keep_the_hash_of_a_reused_block,
    move_decode_slots_by_one,
    move_chunk_slots_by_one,
    write_shared_blocks_in_place,
    forget_the_copy,
    hash_what_is_not_computed_yet,
    leave_the_salt_out_of_the_hash,
    leave_the_tag_out_of_the_hash,
    swap_out_too_little,
    swap_in_to_the_wrong_place,
    recompute_from_the_middle,
    restart_the_random_counter,
    forget_table_updates,
    forget_the_rows_of_forks,
    never_preempt,
    hit_the_whole_prompt,
    promise_what_was_dropped,
    lose_a_finished_sequence,
)
