"""One kind of number that KV blocks hold: on the device, with a twin on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from runtime.block_pool import TRASH_BLOCK
from runtime.stream import Stream


class BlockTensor:
    """Of all layers' keys and values; moves are done in the order of the stream's work."""

    def __init__(
        self,
        num_layers: int,
        num_blocks: int,
        num_host_blocks: int,
        block: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        stream: Stream,
    ) -> None:
        """Allocate zeros; `block` is the shape of one block in one layer."""
        # Zeroed, so that block 0 never holds NaN.
        self.device = _zeros(
            (num_layers, 2, num_blocks, *block), dtype, device
        )  # [num_layers, key or value, num_blocks, *block]
        # On the host a block is in one piece over all layers: few large copies instead of many.
        self._host = stream.host_buffer((num_host_blocks, num_layers, 2, *block), dtype)
        self._stream = stream

    @property
    def bytes_per_block(self) -> int:
        """Of all layers together."""
        return int(self.device[:, :, 0].numel() * self.device.element_size())

    def clear_trash(self) -> None:
        """Zero block 0."""
        self.device[:, :, TRASH_BLOCK].zero_()

    def swap_out(self, sources: torch.Tensor, targets: Sequence[int]) -> None:
        """Save blocks `sources`, int64 [num_moves], at places `targets` of the host."""
        gathered = self.device.index_select(2, sources)
        gathered = gathered.movedim(2, 0).contiguous()  # [num_moves, num_layers, 2, *block]
        for block, target in zip(gathered, targets, strict=True):
            self._stream.copy(block, self._host[target])

    def swap_in(self, sources: Sequence[int], targets: torch.Tensor) -> None:
        """Restore places `sources` of the host to blocks `targets`, int64 [num_moves]."""
        shape = (len(sources), *self._host.shape[1:])
        gathered = torch.empty(shape, dtype=self.device.dtype, device=self.device.device)
        for source, block in zip(sources, gathered, strict=True):
            self._stream.copy(self._host[source], block)
        self.device.index_copy_(2, targets, gathered.movedim(0, 2))

    def copy(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy blocks `sources` to `targets`, both int64 [num_moves]."""
        self.device.index_copy_(2, targets, self.device.index_select(2, sources))


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros; on the host they take no memory until written, which torch's own do at once."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    bytes_ = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(bytes_).view(dtype).view(shape)
