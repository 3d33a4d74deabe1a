"""AWQ checkpoints (version "gemm") to the layout of the kernels, exactly.

A linear layer [n, k] is stored as `qweight` int32 [k, n / 8], `qzeros` int32 [groups, n / 8] and
`scales` [groups, n]. The eight nibbles of a word, lowest first, are columns 0 2 4 6 1 3 5 7 of
eight: that suits a conversion of two at a time. w = (q - zero) * scale; zeros are stored as they
are. After the format of AutoAWQ (Lin et al. 2024, "AWQ").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.errors import UsageError
from autotune.kernels.byte_split import QuantisedWeights, num_groups, pack
from autotune.kernels.packed_words import describe, unpack_words

if TYPE_CHECKING:
    import torch

BITS = 4
COLUMN_OF_NIBBLE = (0, 2, 4, 6, 1, 3, 5, 7)


def import_awq(
    qweight: torch.Tensor,
    qzeros: torch.Tensor,
    scales: torch.Tensor,
    *,
    group_size: int,
    dtype: torch.dtype | None = None,
) -> QuantisedWeights:
    """Re-pack a layer; levels and zeros are kept to the bit.

    Args:
        qweight: int32 [k, n / 8].
        qzeros: int32 [groups, n / 8].
        scales: [groups, n].
        group_size: as in `quantization_config`; -1 or 0 for one group.
        dtype: of the scales that the kernel reads (that of x); None keeps the checkpoint's. Only
            this conversion may round.

    Raises:
        UsageError: shapes that contradict each other (other versions than "gemm" do), or a scale
            that is not finite.
    """
    size = max(0, group_size)
    levels = unpack_words(qweight, BITS, COLUMN_OF_NIBBLE)  # [k, n]
    k, n = levels.shape
    groups = num_groups(k, size)
    if tuple(scales.shape) != (groups, n) or tuple(qzeros.shape) != (groups, qweight.shape[1]):
        raise UsageError(
            f"qweight {describe(qweight)} in groups of {group_size} takes scales {(groups, n)} and "
            f"qzeros {(groups, qweight.shape[1])}, not {describe(scales)}, {describe(qzeros)}; "
            'only version "gemm" of AWQ is read'
        )
    kind = dtype or scales.dtype
    stored = scales.to(kind)
    if not bool(stored.isfinite().all()):
        raise UsageError(f"scales must be finite in {kind}")
    zeros = unpack_words(qzeros, BITS, COLUMN_OF_NIBBLE)
    symmetric = bool((zeros == 1 << (BITS - 1)).all())
    return QuantisedWeights(
        packed=pack(levels.T, BITS),
        scales=stored.contiguous(),
        zeros=None if symmetric else zeros.to(kind).contiguous(),
        bits=BITS,
        group_size=size,
        n=n,
        k=k,
    )
