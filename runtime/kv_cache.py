"""The pool of KV blocks on the device, its twin on the host, and the moves between blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from runtime.block_tensor import BlockTensor
from runtime.kv_codes import CODE_DTYPES
from runtime.stream import make_stream

Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class LayerKV:
    """Keys and values of one layer; of a quantised cache codes, which stand for code * scale."""

    key: torch.Tensor  # [num_blocks, block_size, num_kv_heads, head_dim]
    value: torch.Tensor  # the same
    scales: tuple[torch.Tensor, ...] = ()
    """None of plain numbers; else of keys and of values, float32 [num_blocks, block_size,
    num_kv_heads] each."""

    @property
    def is_quantised(self) -> bool:
        """Whether keys and values are codes."""
        return bool(self.scales)


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
        kv_dtype: str = "auto",
    ) -> None:
        """Allocate; `dtype` is that of keys and values when they come, `kv_dtype` as they stay."""
        self.dtype = dtype
        self.block_size = block_size
        self._stream = make_stream(device)
        slots = (block_size, num_kv_heads)
        counts = (num_layers, num_blocks, num_host_blocks)
        # Codes are moved as bytes, for not every operation that moves knows every type of them.
        stored = dtype if kv_dtype == "auto" else torch.uint8
        numbers = BlockTensor(*counts, (*slots, head_dim), stored, device, self._stream)
        self.tensors: tuple[BlockTensor, ...] = (numbers,)
        """Keys and values, then their scales where they are codes."""
        if kv_dtype == "auto":
            self.layers = tuple(LayerKV(pair[0], pair[1]) for pair in numbers.device)
            return
        scales = BlockTensor(*counts, slots, torch.float32, device, self._stream)
        self.tensors = (numbers, scales)
        codes = numbers.device.view(CODE_DTYPES[kv_dtype])
        self.layers = tuple(
            LayerKV(pair[0], pair[1], (of[0], of[1]))
            for pair, of in zip(codes, scales.device, strict=True)
        )

    @property
    def bytes_per_block(self) -> int:
        """Of all layers together."""
        return sum(tensor.bytes_per_block for tensor in self.tensors)

    def clear_trash(self) -> None:
        """Zero block 0 again after what was run at start to measure or to capture."""
        for tensor in self.tensors:
            tensor.clear_trash()

    def swap_out(self, pairs: Pairs) -> None:
        """Save (device block, host block)."""
        if pairs:
            sources, targets = zip(*pairs, strict=True)
            sent = self._send(sources)
            for tensor in self.tensors:
                tensor.swap_out(sent, targets)

    def swap_in(self, pairs: Pairs) -> None:
        """Restore (host block, device block)."""
        if pairs:
            sources, targets = zip(*pairs, strict=True)
            sent = self._send(targets)
            for tensor in self.tensors:
                tensor.swap_in(sources, sent)

    def copy(self, pairs: Pairs) -> None:
        """Copy (source, destination) on the device; no destination is a source."""
        if pairs:
            sources, targets = (self._send(blocks) for blocks in zip(*pairs, strict=True))
            for tensor in self.tensors:
                tensor.copy(sources, targets)

    def _send(self, block_ids: Sequence[int]) -> torch.Tensor:
        return self._stream.send(np.array(block_ids, dtype=np.int64))
