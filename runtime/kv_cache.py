"""The pool of KV blocks on the device, its twin on the host, and the moves between blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class LayerKV:
    """Keys and values of one layer."""

    key: torch.Tensor  # [num_blocks, block_size, num_kv_heads, head_dim]
    value: torch.Tensor  # the same


class KVCache:
    """All layers' blocks, allocated once; block 0 takes the writes of padding."""

    def __init__(
        self,
        num_layers: int,
        num_blocks: int,
        num_host_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        block = (block_size, num_kv_heads, head_dim)
        # Zeroed, so that block 0 never holds NaN; large pages of zeros cost nothing until written.
        self._device = torch.zeros(
            (num_layers, 2, num_blocks, *block), dtype=dtype, device=device
        )  # [num_layers, key or value, num_blocks, block_size, num_kv_heads, head_dim]
        self._host = torch.zeros((num_layers, 2, num_host_blocks, *block), dtype=dtype)
        self.block_size = block_size
        self.layers = tuple(LayerKV(pair[0], pair[1]) for pair in self._device)

    def swap_out(self, pairs: Pairs) -> None:
        """Save (device block, host block)."""
        if pairs:
            sources, targets = _columns(pairs)
            self._host.index_copy_(2, targets, self._device.index_select(2, sources).cpu())

    def swap_in(self, pairs: Pairs) -> None:
        """Restore (host block, device block)."""
        if pairs:
            sources, targets = _columns(pairs)
            saved = self._host.index_select(2, sources).to(self._device.device)
            self._device.index_copy_(2, targets, saved)

    def copy(self, pairs: Pairs) -> None:
        """Copy (source, destination) on the device; no destination is a source."""
        if pairs:
            sources, targets = _columns(pairs)
            self._device.index_copy_(2, targets, self._device.index_select(2, sources))


def _columns(pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = zip(*pairs, strict=True)
    return torch.tensor(first), torch.tensor(second)
