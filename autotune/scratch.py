"""Memory that kernels of one launch hand partial results on in, kept from launch to launch."""

from __future__ import annotations

from threading import get_ident
from typing import Any

_ALIGNMENT = 512
"""Bytes; as PyTorch's allocator aligns."""
_MOST_KEPT = 4096


class Scratch:
    """One piece of memory per device, stream and thread, grown to what was asked for.

    Work of one thread on one stream runs in the order in which it was launched, so that a launch
    may take what the one before it has used. What is grown out of goes back to PyTorch's allocator,
    which gives it to later work of that stream only. A CUDA graph's launches get memory of their
    own, out of the graph's pool: it is replayed on streams, and at times, that nobody knows yet.
    """

    def __init__(self) -> None:
        """Hold nothing."""
        import torch

        self._torch = torch
        self._whole: dict[tuple[Any, int, int], Any] = {}
        self._parts: dict[tuple[Any, int, int, tuple[int, ...]], tuple[Any, ...]] = {}

    def parts(self, device: Any, stream: int, sizes: tuple[int, ...]) -> tuple[Any, ...]:
        """Return uninitialised uint8 tensors of `sizes` bytes on a torch.device, aligned, apart."""
        if device.type == "cuda" and self._torch.cuda.is_current_stream_capturing():
            return self._cut(self._make(device, _extent(sizes)), sizes)
        key = (device, stream, get_ident(), sizes)
        found = self._parts.get(key)
        if found is None:
            found = self._parts[key] = self._grow(key, sizes)
        return found

    def _grow(
        self, key: tuple[Any, int, int, tuple[int, ...]], sizes: tuple[int, ...]
    ) -> tuple[Any, ...]:
        owner, wanted = key[:3], _extent(sizes)
        if len(self._parts) >= _MOST_KEPT:
            self._parts.clear()
        whole = self._whole.get(owner)
        if whole is None or whole.numel() < wanted:
            # At least twice what there was, so that slowly growing batches do not each ask anew.
            twice = 0 if whole is None else 2 * whole.numel()
            whole = self._whole[owner] = self._make(key[0], max(wanted, twice))
            self._parts = {k: parts for k, parts in self._parts.items() if k[:3] != owner}
        return self._cut(whole, sizes)

    def _make(self, device: Any, size: int) -> Any:
        return self._torch.empty(size, dtype=self._torch.uint8, device=device)

    @staticmethod
    def _cut(whole: Any, sizes: tuple[int, ...]) -> tuple[Any, ...]:
        parts, first = [], 0
        for size in sizes:
            parts.append(whole[first : first + size])
            first += _extent((size,))
        return tuple(parts)


def _extent(sizes: tuple[int, ...]) -> int:
    return sum(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)
