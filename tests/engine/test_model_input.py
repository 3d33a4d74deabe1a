"""What a step's integers become on the device."""

from __future__ import annotations

import torch

from runtime.batch import ScheduledBatch
from runtime.model_input import build_model_input
from runtime.sampling_params import SamplingParams
from runtime.sequence import Request, Sequence

CPU = torch.device("cpu")
BLOCK_SIZE = 4


def a_batch() -> ScheduledBatch:
    """One decode of 9 tokens, then a chunk of 5 that starts at position 2."""
    first, second = (
        Sequence(Request(name, tuple(range(length)), SamplingParams()), (0, index, 0), 32)
        for index, (name, length) in enumerate((("a", 9), ("b", 7)))
    )
    first.block_table[:] = [3, 1, 9]
    second.block_table[:] = [4, 6]
    first.num_computed_tokens, second.num_computed_tokens = 8, 2
    batch = ScheduledBatch(step_id=0, num_decodes=1)
    batch.add_chunk(first, 1, BLOCK_SIZE)
    batch.add_chunk(second, 5, BLOCK_SIZE)
    batch.add_samples([second])
    return batch


def test_tables_follow_the_sequences_and_pad_with_the_trash_block() -> None:
    step = build_model_input(a_batch(), BLOCK_SIZE, CPU, with_tables=True)
    tables = step.tables
    assert tables is not None
    assert tables.block_table.tolist() == [[3, 1, 9] + [0] * 13, [4, 6] + [0] * 14]
    assert tables.query_starts.tolist() == [0, 1, 6]
    assert tables.context_len.tolist() == [9, 7] == list(step.context_lens)
    assert {t.dtype for t in (tables.block_table, tables.query_starts, tables.context_len)} == {
        torch.int32
    }


def test_tables_are_made_for_those_who_want_them() -> None:
    step = build_model_input(a_batch(), BLOCK_SIZE, CPU, with_tables=False)
    assert step.tables is None
    assert step.slot_mapping.tolist() == [36, 18, 19, 24, 25, 26]
    assert step.sample_rows.tolist() == [5]
