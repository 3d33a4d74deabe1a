"""Small integers in 32-bit words, as checkpoints of quantised models store them.

A word is an int32 because torch has few operations on unsigned ones: shifting it right drags its
sign along, and adding to it may overflow, so what is read is masked and what is added is modular.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotune.errors import UsageError

if TYPE_CHECKING:
    import torch

WORD_BITS = 32


def per_word(bits: int) -> int:
    """Fields of a word.

    Raises:
        UsageError: `bits` is not 4 or 8.
    """
    if bits not in (4, 8):
        raise UsageError(f"bits={bits}: packed words have fields of 4 or 8 bits")
    return WORD_BITS // bits


def unpack_words(
    words: torch.Tensor, bits: int, order: Sequence[int] | None = None
) -> torch.Tensor:
    """Fields of int32 words [rows, w], lowest bits first: uint8 [rows, w * fields].

    Args:
        words: int32 [rows, w].
        bits: of a field, 4 or 8.
        order: where each field of a word belongs among its neighbours; None for in order.

    Raises:
        UsageError: `words` is not a matrix of int32, or `bits` is not 4 or 8.
    """
    import torch

    fields = per_word(bits)
    if words.dtype != torch.int32 or words.dim() != 2:
        raise UsageError(f"packed words are int32 [rows, words], not {describe(words)}")
    rows, width = words.shape
    found = torch.empty((rows, width, fields), dtype=torch.uint8, device=words.device)
    for field, place in enumerate(order or range(fields)):
        found[:, :, place] = (words >> (bits * field)) & ((1 << bits) - 1)
    return found.reshape(rows, width * fields)


def pack_words(levels: torch.Tensor, bits: int) -> torch.Tensor:
    """Inverse of `unpack_words` in order: uint8 [rows, columns] to int32 [rows, words].

    The last word is filled with zeros; values must be below 2^bits.
    """
    import torch

    fields = per_word(bits)
    padded = torch.nn.functional.pad(levels, (0, -levels.shape[1] % fields))
    parts = padded.reshape(levels.shape[0], -1, fields).long()
    words = torch.zeros(parts.shape[:2], dtype=torch.int64, device=levels.device)
    for field in range(fields):
        words |= parts[:, :, field] << (bits * field)
    # From 2^31 on the sign bit is set.
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def describe(tensor: torch.Tensor) -> str:
    """Type and shape, for messages."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
