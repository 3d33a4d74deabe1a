"""First launches of the companion kernels, with strides and alignments as steps will have them."""

from __future__ import annotations

import torch

from runtime.kernel_table import LaunchTable
from runtime.kv_cache import LayerKV
from runtime.ops.request import CacheWrite, NormShape


def warm_up_norm(table: LaunchTable, norm: NormShape, kv: LayerKV) -> None:
    """Norm one row of zeros."""
    x = kv.key.new_zeros((1, norm.columns))
    if norm.rows_per_token > 1:  # heads of a token, packed with others
        packed = kv.key.new_zeros((1, 2 * norm.rows_per_token, norm.columns))
        x = packed[:, : norm.rows_per_token]
    weight = torch.zeros_like(x.flatten()[: norm.columns])
    if norm.is_wide:
        weight = weight.float()
    for launch in table.distinct:
        arguments = {"out": torch.empty_like(x).contiguous(), "x": x, "weight": weight}
        if norm.has_residual:
            arguments |= {"residual": x, "total": torch.empty_like(x)}
        launch(**arguments, eps=1.0)


def warm_up_write(table: LaunchTable, write: CacheWrite, kv: LayerKV) -> None:
    """Write zeros to the first slot of block 0, which nobody reads."""
    sizes = (write.num_heads, write.num_kv_heads, write.num_kv_heads)
    packed = kv.key.new_zeros((1, sum(sizes), write.head_dim))
    query, key, value = packed.split(sizes, dim=1)
    place = torch.zeros(1, dtype=torch.int64, device=kv.key.device)
    arguments = {"k": key, "v": value, "k_cache": kv.key, "v_cache": kv.value, "slots": place}
    if write.rotary_dim:
        angles = kv.key.new_zeros((1, 2, write.rotary_dim // 2))
        arguments |= {"out": query, "q": query, "positions": place, "table": angles}
    for launch in table.distinct:
        launch(**arguments)
