"""One step for the attention kernels: which sequences each takes, and which binary."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from runtime.kernel_table import Launch, LaunchTable
from runtime.kv_cache import LayerKV
from runtime.model_input import ModelInput
from runtime.ops.base import AttentionSpec
from runtime.ops.torch_attention import AttentionPlan


@dataclass(frozen=True, slots=True)
class AttentionKernels:
    """Kernels of one kind of attention; None where torch has to do it."""

    decode: LaunchTable | None
    prefill: LaunchTable | None


@dataclass(frozen=True, slots=True)
class StepLaunches:
    """What serves one kind of attention in a step; None where the step has no such sequences."""

    decode: Launch | None
    prefill: Launch | None
    is_torch: bool
    """Torch serves all of the step instead."""


class TritonPlan(AttentionPlan):
    """What all layers of one step share. Made of device tensors, without waiting for any."""

    def __init__(self, step: ModelInput, rope_table: torch.Tensor | None) -> None:
        super().__init__(step, rope_table)
        assert step.tables is not None, "this operation set needs the tables"
        self.launches: dict[AttentionSpec, StepLaunches] = {}
        """Filled by the first layer of each kind."""
        tables, first = step.tables, step.num_decodes
        self.num_decodes = first
        self.num_prefills = tables.context_len.shape[0] - first
        self._block_table = tables.block_table  # int32 [num_seqs, max_blocks]
        self._context_len = tables.context_len  # int32 [num_seqs]
        if self.num_prefills and first:
            # Copies, whose addresses are aligned: a slice's need not be, and Triton would compile
            # another variant of the kernel for it. Rows of the block table always are.
            self._prefill_starts = tables.query_starts[first:] - first
            self._prefill_context_len = tables.context_len[first:].clone()
        else:
            self._prefill_starts = tables.query_starts  # int32 [num_prefills + 1]
            self._prefill_context_len = tables.context_len  # int32 [num_prefills]

    def choose(self, kernels: AttentionKernels) -> StepLaunches:
        """Take from each table what this step needs."""
        decode = prefill = None
        if self.num_decodes:
            if kernels.decode is None:
                return StepLaunches(None, None, is_torch=True)
            decode = kernels.decode.at(self.num_decodes)
        if self.num_prefills:
            if kernels.prefill is None:
                return StepLaunches(None, None, is_torch=True)
            num_tokens = self.step.token_ids.shape[0] - self.num_decodes
            prefill = kernels.prefill.at(-(-num_tokens // self.num_prefills))
        return StepLaunches(decode, prefill, is_torch=False)

    def attend(
        self, query: torch.Tensor, kv: LayerKV, launches: StepLaunches, scale: float
    ) -> torch.Tensor:
        """Run the kernels: [num_tokens, num_heads * head_dim].

        query is [num_tokens, num_heads, head_dim], contiguous in its last dimension.
        """
        out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        first = self.num_decodes
        if launches.decode is not None:
            launches.decode(
                out[:first],
                query[:first],
                kv.key,
                kv.value,
                self._block_table[:first],
                self._context_len[:first],
                scale,
                *kv.scales,
            )
        if launches.prefill is not None:
            launches.prefill(
                out[first:],
                query[first:],
                kv.key,
                kv.value,
                self._block_table[first:],
                self._prefill_starts,
                self._prefill_context_len,
                scale,
                *kv.scales,
            )
        return out.flatten(1)
