"""First launches of kernels, with strides and alignments as steps will have them."""

from __future__ import annotations

import torch

from runtime.kernel_table import LaunchTable
from runtime.kv_cache import KVCache
from runtime.ops.base import AttentionSpec
from runtime.ops.request import CacheWrite, NormShape
from runtime.ops.triton_plan import AttentionKernels


def warm_up_norm(table: LaunchTable, norm: NormShape, cache: KVCache) -> None:
    """Norm one row of zeros."""
    x = _zeros(cache, 1, norm.columns)
    if norm.rows_per_token > 1:  # heads of a token, packed with others
        packed = _zeros(cache, 1, 2 * norm.rows_per_token, norm.columns)
        x = packed[:, : norm.rows_per_token]
    weight = torch.zeros_like(x.flatten()[: norm.columns])
    if norm.is_wide:
        weight = weight.float()
    for launch in table.distinct:
        arguments = {"out": torch.empty_like(x).contiguous(), "x": x, "weight": weight}
        if norm.has_residual:
            arguments |= {"residual": x, "total": torch.empty_like(x)}
        launch(**arguments, eps=1.0)


def warm_up_write(table: LaunchTable, write: CacheWrite, cache: KVCache) -> None:
    """Write zeros to the first slot of block 0, which nobody reads."""
    kv = cache.layers[0]
    sizes = (write.num_heads, write.num_kv_heads, write.num_kv_heads)
    packed = _zeros(cache, 1, sum(sizes), write.head_dim)
    query, key, value = packed.split(sizes, dim=1)
    place = torch.zeros(1, dtype=torch.int64, device=kv.key.device)
    arguments = {"k": key, "v": value, "k_cache": kv.key, "v_cache": kv.value, "slots": place}
    if kv.is_quantised:
        arguments |= dict(zip(("k_scale", "v_scale"), kv.scales, strict=True))
    if write.rotary_dim:
        angles = _zeros(cache, 1, 2, write.rotary_dim // 2)
        arguments |= {"out": query, "q": query, "positions": place, "table": angles}
    for launch in table.distinct:
        launch(**arguments)


def warm_up_attention(kernels: AttentionKernels, spec: AttentionSpec, cache: KVCache) -> None:
    """Run every kernel on one query over an empty context: reads no key, writes nothing."""
    kv = cache.layers[0]
    query = _zeros(cache, 1, spec.num_heads, spec.head_dim)
    table = torch.zeros((1, 16), dtype=torch.int32, device=query.device)
    nothing = torch.zeros(1, dtype=torch.int32, device=query.device)
    starts = torch.tensor([0, 1], dtype=torch.int32, device=query.device)
    pool = (kv.key, kv.value, table)
    for launch in kernels.decode.distinct if kernels.decode is not None else ():
        launch(torch.empty_like(query), query, *pool, nothing, spec.scale, *kv.scales)
    for launch in kernels.prefill.distinct if kernels.prefill is not None else ():
        launch(torch.empty_like(query), query, *pool, starts, nothing, spec.scale, *kv.scales)


def _zeros(cache: KVCache, *shape: int) -> torch.Tensor:
    """In the type that is computed in, which a quantised cache's own is not."""
    return torch.zeros(shape, dtype=cache.dtype, device=cache.layers[0].key.device)
