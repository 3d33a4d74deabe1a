"""Paged attention in plain PyTorch: keys in place where blocks are consecutive, else gathered.

Query heads that share a KV head are laid out as further query rows (decode) or over a stride of
zero (prefill), so keys and values are never repeated in memory.
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from runtime.kv_cache import LayerKV
from runtime.model_input import ModelInput
from runtime.ops.base import AttentionSpec
from runtime.ops.torch_kv import read

_MASKED_ELEMENTS = 1 << 22
"""Scores of a masked prefill at once, about: the longer the context, the fewer query rows."""

_FEWEST_ROWS = 16
_MOST_ROWS = 512


class AttentionPlan:
    """What all layers of one step share: angles, and where each sequence's context is."""

    def __init__(self, step: ModelInput, rope_table: torch.Tensor | None) -> None:
        self.step = step
        self.rope_table = rope_table  # [max_len, 2, rotary_dim / 2]; None for models that rotate
        self._scratch: tuple[torch.Tensor, torch.Tensor] | None = None

    @cached_property
    def angles(self) -> torch.Tensor:
        """Cosines and sines of the step's tokens, [num_tokens, 2, rotary_dim / 2]."""
        assert self.rope_table is not None, "the plan was made without a table of angles"
        return self.rope_table[self.step.positions]

    @cached_property
    def places(self) -> tuple[slice | torch.Tensor, ...]:
        """Per sequence: the blocks as a range, or as int64 [num_blocks] to gather."""
        tables = self.step.tables
        assert tables is not None, "the step was built without tables"
        size = self.step.block_size
        rows = zip(tables.block_table.tolist(), self.step.context_lens, strict=True)
        device = tables.block_table.device
        return tuple(_place(row[: -(-length // size)], device) for row, length in rows)

    def context(
        self, kv: LayerKV, index: int, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a sequence, each [context_len, num_kv_heads, head_dim].

        A quantised cache's are made `dtype`; others are of that type. They may lie in
        memory that the next call for this step writes over.
        """
        place = self.places[index]
        length = self.step.context_lens[index]
        if kv.is_quantised:
            key, value = read(kv, place, dtype)
        elif isinstance(place, slice):
            key, value = kv.key[place], kv.value[place]
        else:
            key, value = self._gather(kv, place)
        return key.flatten(0, 1)[:length], value.flatten(0, 1)[:length]

    def _gather(self, kv: LayerKV, place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # One buffer for all sequences and layers of a step stays in the cache of the core.
        if self._scratch is None:
            gathered = [len(place) for place in self.places if isinstance(place, torch.Tensor)]
            shape = (max(gathered), *kv.key.shape[1:])
            self._scratch = (kv.key.new_empty(shape), kv.value.new_empty(shape))
        key, value = (buffer[: len(place)] for buffer in self._scratch)
        torch.index_select(kv.key, 0, place, out=key)
        torch.index_select(kv.value, 0, place, out=value)
        return key, value


def _place(table: list[int], device: torch.device) -> slice | torch.Tensor:
    first = table[0]
    if table == list(range(first, first + len(table))):
        return slice(first, first + len(table))
    return torch.tensor(table, device=device)


def attend(
    query: torch.Tensor, kv: LayerKV, plan: AttentionPlan, spec: AttentionSpec
) -> torch.Tensor:
    """Causal attention of each sequence's new tokens over its context.

    Args:
        query: [num_tokens, num_heads, head_dim].
        kv: the layer's blocks, with the new tokens' keys and values in them.
        plan: of this step.
        spec: of this layer.

    Returns:
        [num_tokens, num_heads * head_dim].
    """
    out = torch.empty_like(query)
    row = 0
    for index, count in enumerate(plan.step.query_lens):
        rows = slice(row, row + count)
        key, value = plan.context(kv, index, query.dtype)
        if count == 1:
            out[rows] = _decode(query[rows], key, value, spec)
        else:
            _prefill(out[rows], query[rows], key, value, spec)
        row += count
    return out.flatten(1)


def _decode(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spec: AttentionSpec
) -> torch.Tensor:
    """One query: nothing to mask, a window is a shorter context."""
    if spec.window is not None:
        key, value = key[-spec.window :], value[-spec.window :]
    rows = query.view(1, spec.num_kv_heads, spec.group, spec.head_dim)
    out = _scaled_dot_product(rows, _by_head(key), _by_head(value), None, spec)
    return out.reshape(query.shape)


def _prefill(
    out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    spec: AttentionSpec,
) -> None:
    """Many queries, the last ones of their context; writes `out` [count, num_heads, head_dim]."""
    count, context_len = query.shape[0], key.shape[0]
    group, num_kv_heads = spec.group, spec.num_kv_heads
    is_windowed = spec.window is not None and spec.window < context_len
    if count == context_len and not is_windowed and spec.softcap is None:
        # [num_kv_heads, group, context_len, head_dim], keys by a stride of zero over the group
        heads = query.unflatten(1, (num_kv_heads, group)).permute(1, 2, 0, 3)
        shape = (num_kv_heads, group, context_len, spec.head_dim)
        keys = key.transpose(0, 1).unsqueeze(1).expand(shape)
        values = value.transpose(0, 1).unsqueeze(1).expand(shape)
        done = F.scaled_dot_product_attention(heads, keys, values, is_causal=True, scale=spec.scale)
        out.copy_(done.permute(2, 0, 1, 3).flatten(1, 2))
        return
    rows_at_once = _MASKED_ELEMENTS // (context_len * spec.num_heads)
    rows_at_once = min(max(rows_at_once, _FEWEST_ROWS), _MOST_ROWS)
    for low in range(0, count, rows_at_once):
        high = min(low + rows_at_once, count)
        first = context_len - count + low  # position of the first query
        last = context_len - count + high - 1
        start = 0 if spec.window is None else max(0, first - spec.window + 1)
        span = slice(start, last + 1)
        positions = torch.arange(first, last + 1, device=query.device)[:, None]
        sources = torch.arange(start, last + 1, device=query.device)
        mask = sources <= positions  # [high - low, span]
        if spec.window is not None:
            mask &= sources > positions - spec.window
        rows = query[low:high].unflatten(1, (num_kv_heads, group))  # [rows, kv, group, head_dim]
        rows = rows.permute(1, 2, 0, 3).flatten(1, 2).unsqueeze(0)  # [1, kv, group * rows, ...]
        done = _scaled_dot_product(
            rows, _by_head(key[span]), _by_head(value[span]), mask.repeat(group, 1), spec
        )
        done = done.view(num_kv_heads, group, high - low, spec.head_dim).permute(2, 0, 1, 3)
        out[low:high] = done.flatten(1, 2)


def _by_head(x: torch.Tensor) -> torch.Tensor:
    """[context_len, num_kv_heads, head_dim] -> [1, num_kv_heads, context_len, head_dim]."""
    return x.transpose(0, 1).unsqueeze(0)


def _scaled_dot_product(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    spec: AttentionSpec,
) -> torch.Tensor:
    if spec.softcap is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=spec.scale)
    scores = query @ key.transpose(2, 3) * spec.scale
    scores = torch.tanh(scores / spec.softcap) * spec.softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return weights @ value
