"""What a step's integers become on the device."""

from __future__ import annotations

from dataclasses import replace

import torch

from runtime.batch import ScheduledBatch
from runtime.sampling_params import SamplingParams
from runtime.scheduler_config import SchedulerConfig
from runtime.sequence import Request, Sequence
from runtime.step_inputs import StepInputs
from runtime.stream import HostStream

BLOCK_SIZE = 4
LIMITS = SchedulerConfig(
    BLOCK_SIZE, 12, max_num_seqs=5, max_num_batched_tokens=16, max_model_len=20
)


def a_batch() -> ScheduledBatch:
    """One decode of 9 tokens, then a chunk of 5 that starts at position 2."""
    first, second = (
        Sequence(Request(name, tuple(range(length)), SamplingParams()), (0, index, 0), 32)
        for index, (name, length) in enumerate((("a", 9), ("b", 7)))
    )
    first.block_table[:] = [3, 1, 9]
    second.block_table[:] = [4, 6]
    first.row, second.row = 2, 0
    first.num_computed_tokens, second.num_computed_tokens = 8, 2
    batch = ScheduledBatch(step_id=0, num_decodes=1)
    batch.add_chunk(first, 1, BLOCK_SIZE)
    batch.add_chunk(second, 5, BLOCK_SIZE)
    batch.add_samples([second])
    batch.new_rows += [first, second]
    return batch


def make(*, with_tables: bool) -> StepInputs:
    return StepInputs(LIMITS, HostStream(), with_tables=with_tables)


def test_tables_follow_the_sequences_and_pad_with_the_trash_block() -> None:
    inputs = make(with_tables=True)
    step = inputs.upload(inputs.prepare(a_batch()))
    tables = step.tables
    assert tables is not None
    assert tables.block_table.tolist() == [[3, 1, 9] + [0] * 13, [4, 6] + [0] * 14]
    assert tables.query_starts.tolist() == [0, 1, 6]
    assert tables.context_len.tolist() == [9, 7] == list(step.context_lens)
    assert {t.dtype for t in (tables.block_table, tables.query_starts, tables.context_len)} == {
        torch.int32
    }
    assert step.block_tables == ((3, 1, 9), (4, 6)), "for what is left to torch"


def test_tables_are_made_for_those_who_want_them() -> None:
    inputs = make(with_tables=False)
    step = inputs.upload(inputs.prepare(a_batch()))
    assert step.tables is None
    assert step.block_tables == ((3, 1, 9), (4, 6))
    assert step.token_ids.tolist() == [8, 2, 3, 4, 5, 6]
    assert step.positions.tolist() == [8, 2, 3, 4, 5, 6]
    assert step.slot_mapping.tolist() == [36, 18, 19, 24, 25, 26]
    assert step.sample_rows.tolist() == [5]


def test_a_token_in_flight_is_taken_from_its_row_on_the_device() -> None:
    inputs = make(with_tables=True)
    first_batch = a_batch()
    prepared = inputs.prepare(first_batch)
    inputs.upload(prepared)
    inputs.remember(prepared, torch.tensor([77]))
    second = first_batch.sequences[1]
    batch = ScheduledBatch(step_id=1, num_decodes=1)
    second.num_computed_tokens = 7
    batch.add_chunk(second, 1, BLOCK_SIZE)
    batch.add_samples([second])
    batch.table_updates.append((0, 1, 8))
    step = inputs.upload(inputs.prepare(batch))
    assert (step.token_ids.tolist(), step.positions.tolist()) == ([77], [7])
    assert step.tables is not None
    assert step.tables.block_table[0].tolist() == [4, 8] + [0] * 14
    second.token_ids.append(55)
    step = inputs.upload(inputs.prepare(replace(batch, step_id=2, table_updates=[])))
    assert step.token_ids.tolist() == [55], "the host knows it now"


def test_padding_writes_and_reads_the_trash_block_alone() -> None:
    inputs = make(with_tables=True)
    batch = ScheduledBatch(step_id=0, num_decodes=1)
    first = a_batch().sequences[0]
    batch.add_chunk(first, 1, BLOCK_SIZE)
    batch.add_samples([first])
    batch.new_rows.append(first)
    step = inputs.upload(inputs.prepare(batch, graph_size=4))
    assert step.slot_mapping.tolist() == [36, 0, 0, 0]
    assert step.positions.tolist() == [8, 0, 0, 0]
    assert step.num_decodes == 4
    assert step.tables is not None
    assert step.tables.block_table.tolist() == [[3, 1, 9] + [0] * 13, *([[0] * 16] * 3)]
    assert step.tables.context_len.tolist() == [9, 1, 1, 1]
    assert step.tables.query_starts.tolist() == [0, 1, 2, 3, 4]
    assert step.sample_rows.tolist() == [0]
    assert step.block_tables == ()
    static = inputs.static_decodes(4)
    assert static.tables is not None
    for there, here in (
        (static.token_ids, step.token_ids),
        (static.slot_mapping, step.slot_mapping),
        (static.tables.block_table, step.tables.block_table),
        (static.tables.context_len, step.tables.context_len),
    ):
        assert there.data_ptr() == here.data_ptr()
