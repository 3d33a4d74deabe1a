"""One step as tensors, passed along explicitly; `step_inputs` makes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


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
    """Blocks that hold each sequence's context, in logical order; empty in a step to be captured
    and replayed, which is in `tables` alone."""
    query_lens: tuple[int, ...]
    """Tokens of each sequence in this step."""
    context_lens: tuple[int, ...]
    """Tokens of each sequence that its last token attends to, itself included; in a step to be
    captured, the most that any can have."""
    num_decodes: int
    """Leading sequences that have one token each."""
    sample_rows: torch.Tensor  # int64 [num_samples]
    """Token whose hidden state each sample is drawn from."""
    block_size: int
    """Tokens per block."""
    tables: KernelTables | None
    """For operation sets that want them (`OperationSet.needs_tables`)."""
