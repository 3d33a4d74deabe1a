"""GPTQ checkpoints to the layout of the kernels, exactly.

A linear layer [n, k] is stored as `qweight` int32 [k / 8, n] (8 bits: k / 4), field i of a word
being row 8 r + i; `qzeros` int32 [groups, n / 8], in order along n; `scales` [groups, n]; and
`g_idx` int32 [k], the group of every row. w = (q - zero) * scale. After the formats of AutoGPTQ and
GPTQModel (github.com/ModelCloud/GPTQModel).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotune.errors import UnknownChoiceError, UsageError
from autotune.kernels.byte_split import QuantisedWeights, num_groups, pack
from autotune.kernels.packed_words import describe, per_word, unpack_words

if TYPE_CHECKING:
    import torch

CHECKPOINT_FORMATS = ("gptq", "gptq_v2")
"""As `quantize_config.json` calls them. The first stores zeros minus one, the second zeros."""


@dataclass(frozen=True, slots=True)
class GptqWeights:
    """An imported layer: out = kernel(x[:, order]), or kernel(x) without an order."""

    weights: QuantisedWeights
    order: torch.Tensor | None
    """int64 [k]: the input feature that each column of `weights` multiplies; None: as they come.

    Activation order spreads a group over the rows; sorted by group, every 16 k's share a scale
    again. The caller gathers x, m * k elements once: in the kernel the gather would be repeated for
    every block of columns, element by element. Layers that read the same x and were quantised
    together (q, k, v; gate, up) have the same order.
    """


def import_gptq(
    qweight: torch.Tensor,
    qzeros: torch.Tensor,
    scales: torch.Tensor,
    g_idx: torch.Tensor | None = None,
    *,
    group_size: int,
    bits: int = 4,
    checkpoint_format: str = "gptq",
    dtype: torch.dtype | None = None,
) -> GptqWeights:
    """Re-pack a layer; levels and zeros are kept to the bit.

    Args:
        qweight: int32 [k / fields, n].
        qzeros: int32 [groups, n / fields].
        scales: [groups, n].
        g_idx: int [k]; None for k // group_size.
        group_size: as in `quantize_config.json`; -1 or 0 for one group.
        bits: 4 or 8.
        checkpoint_format: one of `CHECKPOINT_FORMATS`.
        dtype: of the scales that the kernel reads (that of x); None keeps the checkpoint's. Only
            this conversion may round.

    Raises:
        UnknownChoiceError: no such checkpoint format.
        UsageError: other bits, shapes that contradict each other, a scale that is not finite, or
            groups that are not of `group_size` rows each.
    """
    if checkpoint_format not in CHECKPOINT_FORMATS:
        raise UnknownChoiceError("GPTQ checkpoint format", checkpoint_format, CHECKPOINT_FORMATS)
    fields, size = per_word(bits), max(0, group_size)
    levels = unpack_words(qweight.T, bits)  # [n, k]
    n, k = levels.shape
    groups = num_groups(k, size)
    if tuple(scales.shape) != (groups, n) or tuple(qzeros.shape) != (groups, math.ceil(n / fields)):
        raise UsageError(
            f"qweight {describe(qweight)} in groups of {group_size} takes scales {(groups, n)} and "
            f"qzeros {(groups, math.ceil(n / fields))}, not {describe(scales)}, {describe(qzeros)}"
        )
    kind = dtype or scales.dtype
    stored = scales.to(kind)
    if not bool(stored.isfinite().all()):
        raise UsageError(f"scales must be finite in {kind}")
    zeros = _zeros(qzeros, bits, checkpoint_format)[:, :n]
    order = None if g_idx is None else _order(g_idx, k, size)
    symmetric = bool((zeros == 1 << (bits - 1)).all())
    return GptqWeights(
        QuantisedWeights(
            packed=pack(levels if order is None else levels[:, order], bits),
            scales=stored.contiguous(),
            zeros=None if symmetric else zeros.to(kind).contiguous(),
            bits=bits,
            group_size=size,
            n=n,
            k=k,
        ),
        order,
    )


def _zeros(qzeros: torch.Tensor, bits: int, checkpoint_format: str) -> torch.Tensor:
    """Zeros, uint8 [groups, columns].

    GPTQModel subtracts one from all fields by one subtraction from the word, so a zero of 0 borrows
    from its neighbour; adding to the word gives that back. Readers that add to each field make 16
    of such a zero, and are one off beside it; where no zero is 0 all agree.
    """
    import torch

    if checkpoint_format == "gptq_v2":
        return unpack_words(qzeros, bits)
    ones = sum(1 << (bits * field) for field in range(per_word(bits)))
    if qzeros.dtype != torch.int32:
        raise UsageError(f"qzeros are int32, not {describe(qzeros)}")
    total = (qzeros.long() + ones) & 0xFFFFFFFF
    return unpack_words(torch.where(total >= 1 << 31, total - (1 << 32), total).int(), bits)


def _order(g_idx: torch.Tensor, k: int, size: int) -> torch.Tensor | None:
    """Rows sorted by group, those of a group as they come; None if they are sorted."""
    import torch

    if tuple(g_idx.shape) != (k,):
        raise UsageError(f"g_idx has shape {tuple(g_idx.shape)}, not {(k,)}")
    # In 64 bits: -1 would not be below 0 in some types.
    found = g_idx.long()
    wanted = torch.arange(k, device=found.device) // (size or k)
    if torch.equal(found, wanted):
        return None
    order = torch.argsort(found, stable=True)
    if not torch.equal(found[order], wanted):
        raise UsageError(
            f"g_idx does not split {k} rows into groups of {size or k}: a part of a layer, or "
            "another group size; import the whole layer before sharding it"
        )
    return order
