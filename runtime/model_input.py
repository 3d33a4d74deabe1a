"""One step as tensors, built from the scheduler's integers and passed along explicitly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from runtime.batch import ScheduledBatch

_ROW_ALIGNMENT = 16
"""Entries that a table's rows are padded to a multiple of: Triton compiles another variant of a
kernel for strides that are not, and every row then starts at an aligned address."""


@dataclass(frozen=True, slots=True, eq=False)
class KernelTables:
    """Where each sequence is, on the device: for kernels that take all of them at once."""

    block_table: torch.Tensor  # int32 [num_seqs, max_blocks], rows padded with block 0
    query_starts: torch.Tensor  # int32 [num_seqs + 1], row of each sequence's first token
    context_len: torch.Tensor  # int32 [num_seqs], as `ModelInput.context_lens`


@dataclass(frozen=True, slots=True, eq=False)
class ModelInput:
    """What a forward pass takes; sequences follow one another in the token dimension."""

    token_ids: torch.Tensor  # int64 [num_tokens]
    positions: torch.Tensor  # int64 [num_tokens]
    slot_mapping: torch.Tensor  # int64 [num_tokens]
    block_tables: tuple[tuple[int, ...], ...]
    """Blocks that hold each sequence's context, in logical order."""
    query_lens: tuple[int, ...]
    """Tokens of each sequence in this step."""
    context_lens: tuple[int, ...]
    """Tokens of each sequence that its last token attends to, itself included."""
    num_decodes: int
    """Leading sequences that have one token each."""
    sample_rows: torch.Tensor  # int64 [num_samples]
    """Token whose hidden state each sample is drawn from."""
    block_size: int
    """Tokens per block."""
    tables: KernelTables | None
    """For operation sets that want them (`OperationSet.needs_tables`)."""


def build_model_input(
    batch: ScheduledBatch, block_size: int, device: torch.device, *, with_tables: bool
) -> ModelInput:
    """Gather the tokens of a batch; every one of them must be known by now."""
    token_ids: list[int] = []
    positions: list[int] = []
    tables: list[tuple[int, ...]] = []
    ends: list[int] = []
    rows_before: list[int] = []
    for sequence, start, count in zip(batch.sequences, batch.starts, batch.counts, strict=True):
        end = start + count
        assert end <= len(sequence.token_ids), f"{sequence}: a token to compute is not known yet"
        token_ids.extend(sequence.token_ids[start:end])
        positions.extend(range(start, end))
        tables.append(tuple(sequence.block_table[: -(-end // block_size)]))
        ends.append(end)
        rows_before.append(len(token_ids))
    sample_rows = [rows_before[index] - 1 for index in batch.sample_indices]
    return ModelInput(
        token_ids=torch.tensor(token_ids, device=device),
        positions=torch.tensor(positions, device=device),
        slot_mapping=torch.tensor(batch.slot_mapping, device=device),
        block_tables=tuple(tables),
        query_lens=tuple(batch.counts),
        context_lens=tuple(ends),
        num_decodes=batch.num_decodes,
        sample_rows=torch.tensor(sample_rows, dtype=torch.int64, device=device),
        block_size=block_size,
        tables=_tables(tables, batch.counts, ends, device) if with_tables else None,
    )


def _tables(
    tables: Sequence[Sequence[int]],
    query_lens: Sequence[int],
    context_lens: Sequence[int],
    device: torch.device,
) -> KernelTables:
    longest = max(map(len, tables))
    width = -(-longest // _ROW_ALIGNMENT) * _ROW_ALIGNMENT
    padded = [(*table, *(0,) * (width - len(table))) for table in tables]
    starts = (0, *accumulate(query_lens))
    return KernelTables(
        block_table=torch.tensor(padded, dtype=torch.int32, device=device),
        query_starts=torch.tensor(starts, dtype=torch.int32, device=device),
        context_len=torch.tensor(context_lens, dtype=torch.int32, device=device),
    )
