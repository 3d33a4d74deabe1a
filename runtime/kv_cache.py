"""The pool of KV blocks on the device, its twin on the host, and the moves between blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from runtime.block_pool import TRASH_BLOCK
from runtime.stream import make_stream

Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class LayerKV:
    """Keys and values of one layer."""

    key: torch.Tensor  # [num_blocks, block_size, num_kv_heads, head_dim]
    value: torch.Tensor  # the same


class KVCache:
    """All layers' blocks, allocated once; block 0 takes the writes of padding.

    Moves are only asked for here: they are done in the order of the device's work.
    """

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
        self._stream = make_stream(device)
        # Zeroed, so that block 0 never holds NaN.
        self._device = _zeros(
            (num_layers, 2, num_blocks, *block), dtype, device
        )  # [num_layers, key or value, num_blocks, block_size, num_kv_heads, head_dim]
        # On the host a block is in one piece over all layers: few large copies instead of many.
        self._host = self._stream.host_buffer((num_host_blocks, num_layers, 2, *block), dtype)
        self.block_size = block_size
        self.layers = tuple(LayerKV(pair[0], pair[1]) for pair in self._device)

    @property
    def bytes_per_block(self) -> int:
        """Of all layers together."""
        return int(self._device[:, :, 0].numel() * self._device.element_size())

    def clear_trash(self) -> None:
        """Zero block 0 again after what was run at start to measure or to capture."""
        self._device[:, :, TRASH_BLOCK].zero_()

    def swap_out(self, pairs: Pairs) -> None:
        """Save (device block, host block)."""
        if pairs:
            sources, targets = zip(*pairs, strict=True)
            gathered = self._device.index_select(2, self._send(sources))
            gathered = gathered.movedim(2, 0).contiguous()  # [num_pairs, num_layers, 2, ...]
            for block, target in zip(gathered, targets, strict=True):
                self._stream.copy(block, self._host[target])

    def swap_in(self, pairs: Pairs) -> None:
        """Restore (host block, device block)."""
        if pairs:
            sources, targets = zip(*pairs, strict=True)
            shape = (len(pairs), *self._host.shape[1:])
            gathered = torch.empty(shape, dtype=self._device.dtype, device=self._device.device)
            for source, block in zip(sources, gathered, strict=True):
                self._stream.copy(self._host[source], block)
            self._device.index_copy_(2, self._send(targets), gathered.movedim(0, 2))

    def copy(self, pairs: Pairs) -> None:
        """Copy (source, destination) on the device; no destination is a source."""
        if pairs:
            sources, targets = zip(*pairs, strict=True)
            saved = self._device.index_select(2, self._send(sources))
            self._device.index_copy_(2, self._send(targets), saved)

    def _send(self, block_ids: Sequence[int]) -> torch.Tensor:
        return self._stream.send(np.array(block_ids, dtype=np.int64))


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros; on the host they take no memory until written, which torch's own do at once."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    bytes_ = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(bytes_).view(dtype).view(shape)
