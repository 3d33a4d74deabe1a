"""The KV cache's slots in plain PyTorch: written, and read back as numbers."""

from __future__ import annotations

import torch

from runtime.kv_cache import LayerKV
from runtime.kv_codes import dequantise, quantise


def write(key: torch.Tensor, value: torch.Tensor, kv: LayerKV, slots: torch.Tensor) -> None:
    """Write keys and values [num_tokens, num_kv_heads, head_dim] to slots, int64 [num_tokens]."""
    if not kv.is_quantised:
        kv.key.flatten(0, 1).index_copy_(0, slots, key)
        kv.value.flatten(0, 1).index_copy_(0, slots, value)
        return
    for pool, pool_scales, new in zip((kv.key, kv.value), kv.scales, (key, value), strict=True):
        codes, scales = quantise(new, pool.dtype)
        _bytes(pool).flatten(0, 1).index_copy_(0, slots, _bytes(codes))
        pool_scales.flatten(0, 1).index_copy_(0, slots, scales)


def read(kv: LayerKV, place: slice | torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
    """Keys and values of blocks of a quantised cache.

    Args:
        kv: of a layer.
        place: the blocks, as a range or as int64 [num_blocks].
        dtype: of the result.

    Returns:
        Two of [num_blocks, block_size, num_kv_heads, head_dim].
    """
    return [
        dequantise(_bytes(pool)[place].view(pool.dtype), scales[place], dtype)
        for pool, scales in zip((kv.key, kv.value), kv.scales, strict=True)
    ]


def _bytes(codes: torch.Tensor) -> torch.Tensor:
    """Not every operation that moves codes knows their type."""
    return codes.view(torch.uint8)
