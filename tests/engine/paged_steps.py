"""Steps over scattered blocks with poison in unused memory, and attention by its definition."""

from __future__ import annotations

import torch

from runtime.kv_cache import LayerKV
from runtime.model_input import KernelTables, ModelInput
from runtime.ops.base import AttentionSpec


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float32).to(dtype)


def with_codes(kv: LayerKV, dtype: torch.dtype) -> LayerKV:
    """A cache of all codes there are, where `kv` is written; elsewhere what does most harm."""
    pools, scales = [], []
    for pool in (kv.key, kv.value):
        is_unused = pool[..., 0].isnan()
        codes = torch.randint(256, pool.shape, dtype=torch.uint8)
        worst = 0x80
        if dtype == torch.float8_e4m3fn:
            worst = 0x7F  # NaN
            codes[codes & 0x7F == worst] = 0
        codes[is_unused] = worst
        pools.append(codes.view(dtype))
        # Numbers near one, differently loud by token and head.
        scale = torch.rand(pool.shape[:3]) * 2 / (64 if dtype == torch.int8 else 200)
        scales.append(scale.masked_fill(is_unused, torch.nan))
    return LayerKV(pools[0], pools[1], (scales[0], scales[1]))


def numbers(kv: LayerKV) -> tuple[torch.Tensor, ...]:
    """What keys and values stand for, float64 [num_blocks, block_size, num_kv_heads, head_dim]."""
    pools = (kv.key.double(), kv.value.double())
    if not kv.is_quantised:
        return pools
    return tuple(
        pool * scale.double()[..., None] for pool, scale in zip(pools, kv.scales, strict=True)
    )


def paged_step(
    query_lens: tuple[int, ...],
    context_lens: tuple[int, ...],
    spec: AttentionSpec,
    dtype: torch.dtype,
    *,
    block_size: int,
) -> tuple[ModelInput, LayerKV]:
    """A step over scattered blocks; every slot that no context covers is NaN."""
    counts = [-(-length // block_size) for length in context_lens]
    order = (torch.randperm(sum(counts)) + 1).tolist()
    tables = tuple(tuple(order.pop() for _ in range(count)) for count in counts)
    shape = (sum(counts) + 1, block_size, spec.num_kv_heads, spec.head_dim)
    kv = LayerKV(torch.full(shape, torch.nan, dtype=dtype), torch.full(shape, torch.nan).to(dtype))
    positions, slots = [], []
    for table, count, length in zip(tables, query_lens, context_lens, strict=True):
        places = [table[p // block_size] * block_size + p % block_size for p in range(length)]
        for pool in (kv.key, kv.value):
            pool.flatten(0, 1)[places] = random(length, *shape[2:], dtype=dtype)
        positions.extend(range(length - count, length))
        slots.extend(places[length - count :])
    padded = torch.zeros(len(tables), max(counts), dtype=torch.int32)
    for row, table in enumerate(tables):
        padded[row, : len(table)] = torch.tensor(table)
    starts = torch.tensor((0, *query_lens)).cumsum(0).int()
    lengths = torch.tensor(context_lens, dtype=torch.int32)
    step = ModelInput(
        token_ids=torch.zeros(len(positions), dtype=torch.int64),
        positions=torch.tensor(positions),
        slot_mapping=torch.tensor(slots),
        block_tables=tables,
        query_lens=query_lens,
        context_lens=context_lens,
        num_decodes=0,
        sample_rows=torch.zeros(0, dtype=torch.int64),
        block_size=block_size,
        tables=KernelTables(padded, starts, lengths),
    )
    return step, kv


def reference_attention(
    query: torch.Tensor, kv: LayerKV, step: ModelInput, spec: AttentionSpec
) -> torch.Tensor:
    outputs, row = [], 0
    for table, count, length in zip(
        step.block_tables, step.query_lens, step.context_lens, strict=True
    ):
        key, value = (
            pool[list(table)].flatten(0, 1)[:length].repeat_interleave(spec.group, dim=1)
            for pool in numbers(kv)
        )
        scores = torch.einsum("qhd,khd->hqk", query[row : row + count].double(), key) * spec.scale
        if spec.softcap is not None:
            scores = torch.tanh(scores / spec.softcap) * spec.softcap
        distance = torch.arange(length - count, length)[:, None] - torch.arange(length)
        is_hidden = distance < 0
        if spec.window is not None:
            is_hidden |= distance >= spec.window
        shares = torch.softmax(scores.masked_fill(is_hidden, -torch.inf), dim=-1)
        outputs.append(torch.einsum("hqk,khd->qhd", shares, value).flatten(1))
        row += count
    return torch.cat(outputs)
