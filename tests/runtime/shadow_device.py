"""A dictionary in place of the device: slot -> history of the token whose KV it holds.

It does what a model runner is told to do by a batch, and nothing else: it reads context through
the block table, input tokens from what it sampled itself, and refuses whatever does not fit.
"""

from __future__ import annotations

from shadow_model import histories, mix, root

from runtime.batch import ScheduledBatch
from runtime.block_pool import TRASH_BLOCK
from runtime.sequence import Sequence


class ShadowDevice:
    """Executes batches in order; raises AssertionError at the first thing that is wrong."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.slots: dict[int, int] = {}
        self.host_slots: dict[int, int] = {}
        self.tables: dict[int, list[int]] = {}  # row -> block table, kept by the batches' changes
        self.last_token: dict[int, int] = {}  # row -> token sampled last
        self.truth: dict[Sequence, list[int]] = {}  # all tokens, those in flight included
        self._histories: dict[Sequence, list[int]] = {}

    def learn(self, sequence: Sequence, token_ids: list[int]) -> None:
        """Start to follow a sequence, whose tokens so far are given."""
        self.truth[sequence] = list(token_ids)
        self._histories[sequence] = histories(sequence.request, token_ids)

    def append(self, sequence: Sequence, token_id: int) -> None:
        """Note the next token of a sequence."""
        past = self._histories[sequence]
        past.append(mix(past[-1], token_id))
        self.truth[sequence].append(token_id)

    def forget(self, sequence: Sequence) -> None:
        """Stop following a sequence that has ended."""
        self.truth.pop(sequence, None)
        self._histories.pop(sequence, None)

    def history_of(self, sequence: Sequence) -> list[int]:
        """True history of each position of a sequence."""
        return self._histories[sequence]

    def execute(self, batch: ScheduledBatch) -> list[int]:
        """Move blocks, write every token's history; returns the history under each sample."""
        for source, target in batch.swap_outs:
            self._move(self.slots, source, self.host_slots, target)
        for source, target in batch.swap_ins:
            self._move(self.host_slots, source, self.slots, target)
        for source, target in batch.copies:
            self._move(self.slots, source, self.slots, target)
        self._update_tables(batch)
        reached: list[int] = []
        at = 0
        for index, sequence in enumerate(batch.sequences):
            slots = batch.slot_mapping[at : at + batch.counts[index]]
            at += len(slots)
            reached.append(self._forward(sequence, batch.starts[index], slots))
        assert at == len(batch.slot_mapping), "there are slots that no sequence asked for"
        # Read what the forward pass attends to only after all of it was written: a later write of
        # the same step must not have damaged an earlier sequence's context.
        for sequence, start, count in zip(batch.sequences, batch.starts, batch.counts, strict=True):
            self.check_context(sequence, start + count)
        return [reached[index] for index in batch.sample_indices]

    def check_context(self, sequence: Sequence, num_tokens: int) -> None:
        """Reading `num_tokens` positions through the block table gives just their histories."""
        past = self._histories[sequence]
        for position in range(num_tokens):
            found = self.slots.get(self._slot(sequence, position))
            assert found == past[position], f"{sequence} reads foreign KV at position {position}"

    def check_host(self, sequence: Sequence) -> None:
        """What was swapped out is all there."""
        past = self._histories[sequence]
        for position in range(sequence.num_computed_tokens):
            index, offset = divmod(position, self.block_size)
            found = self.host_slots.get(sequence.host_table[index] * self.block_size + offset)
            assert found == past[position], f"{sequence} lost KV at position {position} on the host"

    def _slot(self, sequence: Sequence, position: int) -> int:
        index, offset = divmod(position, self.block_size)
        return sequence.block_table[index] * self.block_size + offset

    def _forward(self, sequence: Sequence, start: int, slots: list[int]) -> int:
        """Compute tokens from `start` on; returns the history of the last one."""
        assert sequence.row is not None, f"{sequence} is scheduled without a seat"
        assert self.tables[sequence.row] == sequence.block_table, f"row of {sequence} is stale"
        end = start + len(slots)
        known = sequence.token_ids
        assert slots, f"{sequence} is scheduled without tokens"
        assert end <= len(known) + 1, f"{sequence} is scheduled two tokens ahead"
        assert known == self.truth[sequence][: len(known)], f"tokens of {sequence} differ"
        history = self.slots[self._slot(sequence, start - 1)] if start else root(sequence.request)
        for position, slot in enumerate(slots, start):
            assert slot == self._slot(sequence, position), f"{sequence}: slot of {position} is off"
            assert slot // self.block_size != TRASH_BLOCK, f"{sequence} writes to the trash block"
            ahead = position >= len(known)
            token_id = self.last_token[sequence.row] if ahead else known[position]
            history = mix(history, token_id)
            self.slots[slot] = history
        assert history == self._histories[sequence][end - 1], f"{sequence} was computed wrongly"
        return history

    def _update_tables(self, batch: ScheduledBatch) -> None:
        for sequence in batch.new_rows:
            assert sequence.row is not None, f"new row of {sequence}, which has none"
            self.tables[sequence.row] = list(sequence.block_table)
        for row, index, block_id in batch.table_updates:
            table = self.tables[row]
            assert index <= len(table), "an update leaves a hole in a block table"
            table[index : index + 1] = [block_id]

    def _move(
        self, source_slots: dict[int, int], source: int, target_slots: dict[int, int], target: int
    ) -> None:
        for offset in range(self.block_size):
            content = source_slots.get(source * self.block_size + offset)
            slot = target * self.block_size + offset
            if content is None:
                target_slots.pop(slot, None)
            else:
                target_slots[slot] = content
