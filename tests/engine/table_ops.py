"""Torch operations that read a step's tensors alone, as an operation set for GPUs must."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch

from runtime.model_input import ModelInput
from runtime.ops.request import OpsRequest
from runtime.ops.torch_attention import AttentionPlan
from runtime.ops.torch_ops import TorchOps


class TableOps(TorchOps):
    """Everything is looked up in `ModelInput.tables`; the integers beside are ignored."""

    name = "tables"
    needs_tables = True
    can_capture = True

    def plan(self, step: ModelInput, rope_table: torch.Tensor | None) -> AttentionPlan:
        tables = step.tables
        assert tables is not None
        lens = tables.context_len.tolist()
        starts = tables.query_starts.tolist()
        seen = replace(
            step,
            block_tables=tuple(
                tuple(row[: -(-length // step.block_size)])
                for row, length in zip(tables.block_table.tolist(), lens, strict=True)
            ),
            context_lens=tuple(lens),
            query_lens=tuple(b - a for a, b in pairwise(starts)),
        )
        return super().plan(seen, rope_table)


def make(request: OpsRequest) -> TableOps:
    return TableOps()
