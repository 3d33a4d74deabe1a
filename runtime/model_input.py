"""One step as tensors, built from the scheduler's integers and passed along explicitly."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from runtime.batch import ScheduledBatch


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


def build_model_input(batch: ScheduledBatch, block_size: int, device: torch.device) -> ModelInput:
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
    )
