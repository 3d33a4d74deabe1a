"""The attention of one layer of a transformers model, over the paged KV cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from runtime.errors import UnsupportedModelError
from runtime.generic.attention_call import AttentionCall
from runtime.kv_cache import KVCache
from runtime.ops.base import OperationSet


@dataclass(slots=True)
class CurrentStep:
    """What the attention calls of a forward pass share: set before it, None after."""

    cache: KVCache | None = None
    plan: Any = None


class PagedAttention:
    """Writes keys and values to their slots and attends to them; a handler of `interface`."""

    def __init__(
        self, call: AttentionCall, index: int, ops: OperationSet, step: CurrentStep
    ) -> None:
        """Bind a layer: `index` is its place in the cache, `step` is shared by all layers."""
        self._call = call
        self._index = index
        self._ops = ops
        self._step = step

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,  # [1, num_heads, num_tokens, key_dim]
        key: torch.Tensor,  # [1, num_kv_heads, num_tokens, key_dim]
        value: torch.Tensor,  # [1, num_kv_heads, num_tokens, value_dim]
        attention_mask: torch.Tensor | None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        """Return [1, num_tokens, num_heads, value_dim], and no weights."""
        call, step = self._call, self._step
        assert step.cache is not None, f"{call.module} is called outside of a step"
        kv = step.cache.layers[self._index]
        spec = call.spec
        if not query.dtype == key.dtype == value.dtype == kv.key.dtype:
            raise UnsupportedModelError(
                f"{call.module} attends in {query.dtype}, but the KV cache is in {kv.key.dtype}: "
                "try another dtype"
            )
        rows = _by_token(query, spec.head_dim).contiguous()
        self._ops.write(
            _by_token(key, spec.head_dim), _by_token(value, spec.head_dim), kv, step.plan
        )
        out = self._ops.attention(rows, kv, step.plan, spec)
        heads = out.view(1, -1, spec.num_heads, spec.head_dim)
        if call.value_dim < spec.head_dim:
            heads = heads[..., : call.value_dim].contiguous()
        return heads, None


def _by_token(x: torch.Tensor, head_dim: int) -> torch.Tensor:
    """[1, heads, num_tokens, dim] -> [num_tokens, heads, head_dim], padded with zeros."""
    if x.shape[3] < head_dim:
        x = F.pad(x, (0, head_dim - x.shape[3]))
    return x[0].transpose(0, 1)
