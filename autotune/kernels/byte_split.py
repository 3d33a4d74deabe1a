"""The weight layout `byte_split`: quantise, pack, unpack. The kernels read it; importers write it.

Weights [N, K] are stored as uint8 [cells of K, N, 16], K padded with zeros to a multiple of 32. For
4 bits a cell is 32 consecutive k's: byte j has k = j in its low nibble and k = j + 16 in its high
one, so that each nibble of a tile is 16 neighbours of x and no byte is loaded twice. For 8 bits a
cell is 16 consecutive k's, one a byte.

Why this order. A cell is one 16-byte load along K: a thread that sums products owns whole cells,
each inside one quantisation group, and needs one scale for it; and in shared memory columns lie
along K, which is how matrix instructions take them ([K, N] bytes would be read one by one). N comes
next, so that a tile of any BLOCK_K is BLOCK_N x 16 contiguous bytes per cell; in [N, K] order a
short BLOCK_K would touch a few bytes of every row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotune.errors import UsageError

if TYPE_CHECKING:
    import torch

CELL_BYTES = 16
K_MULTIPLE = 32
"""K is padded to a multiple of this, whatever the bits."""


@dataclass(frozen=True, slots=True)
class QuantisedWeights:
    """A weight matrix [n, k] in `byte_split`: w = (q - zero) * scale."""

    packed: torch.Tensor  # uint8 [cells of k, n, 16]
    scales: torch.Tensor  # [groups of k, n], dtype of the activations
    zeros: torch.Tensor | None  # as scales, whole numbers in [0, 2^bits]; None: 2^(bits - 1)
    bits: int
    group_size: int
    """Consecutive k's that share scale and zero; 0 for all of a column."""
    n: int
    k: int

    def __post_init__(self) -> None:
        packed_shape = (num_cells(self.k, self.bits), self.n, CELL_BYTES)
        groups_shape = (num_groups(self.k, self.group_size), self.n)
        for name, tensor, shape in (
            ("packed", self.packed, packed_shape),
            ("scales", self.scales, groups_shape),
            ("zeros", self.zeros, groups_shape),
        ):
            if tensor is not None and tuple(tensor.shape) != shape:
                raise UsageError(f"{name} has shape {tuple(tensor.shape)}, not {shape}")


def num_cells(k: int, bits: int) -> int:
    """Cells that one column of `k` weights fills, padding included."""
    _check_bits(bits)
    return math.ceil(k / K_MULTIPLE) * (K_MULTIPLE * bits // 8 // CELL_BYTES)


def num_groups(k: int, group_size: int) -> int:
    """Groups along `k`; the last may be short."""
    return math.ceil(k / group_size) if group_size else 1


def pack(quantised: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack uint8 [n, k], values below 2^bits, to [cells of k, n, 16].

    Raises:
        UsageError: `bits` is not 4 or 8, or a value does not fit.
    """
    import torch

    n, k = quantised.shape
    cells = num_cells(k, bits)
    if quantised.numel() and int(quantised.max()) >= 1 << bits:
        raise UsageError(f"value {int(quantised.max())} does not fit {bits} bits")
    padded = torch.nn.functional.pad(quantised, (0, -k % K_MULTIPLE))
    if bits == 4:
        halves = padded.reshape(n, cells, 2, CELL_BYTES)
        stored = halves[:, :, 0] | (halves[:, :, 1] << 4)
    else:
        stored = padded.reshape(n, cells, CELL_BYTES)
    return stored.transpose(0, 1).contiguous()  # [cells, n, 16]


def unpack(packed: torch.Tensor, bits: int, k: int) -> torch.Tensor:
    """Inverse of `pack`: uint8 [n, k]."""
    import torch

    _check_bits(bits)
    stored = packed.transpose(0, 1)  # [n, cells, 16]
    if bits == 4:
        stored = torch.stack((stored & 15, stored >> 4), dim=2)  # [n, cells, 2, 16]
    return stored.reshape(packed.shape[1], -1)[:, :k].contiguous()


def quantise(
    weights: torch.Tensor, bits: int, group_size: int, zero_point: bool
) -> QuantisedWeights:
    """Round weights [n, k] to the nearest of 2^bits levels per group, spread over its range.

    Scales have the dtype of `weights` and are rounded before they are used. With `zero_point` the
    levels span the group's range, zero included, so that zero is exact; without, they are centred
    and span plus and minus the largest absolute weight.

    Raises:
        UsageError: `bits` is not 4 or 8, or a weight is not finite.
    """
    import torch

    _check_bits(bits)
    if not bool(weights.isfinite().all()):
        raise UsageError("weights must be finite to be quantised")
    n, k = weights.shape
    groups, size = num_groups(k, group_size), group_size or k
    # Zeros in the padding widen no range: every range includes zero.
    padded = torch.nn.functional.pad(weights.double(), (0, groups * size - k))
    grouped = padded.reshape(n, groups, size)
    top = (1 << bits) - 1
    low = grouped.amin(2).clamp(max=0.0)
    high = grouped.amax(2).clamp(min=0.0)
    ideal = (high - low) / top if zero_point else torch.maximum(-low, high) / (top // 2)
    tiny = torch.finfo(weights.dtype).tiny
    scales = ideal.where(ideal > 0, torch.ones_like(ideal)).clamp(min=tiny).to(weights.dtype)
    steps = scales.double()
    if zero_point:
        zeros = (-low / steps).round().clamp(0, top)
    else:
        zeros = torch.full_like(steps, float((top + 1) // 2))
    levels = ((grouped / steps[:, :, None]).round() + zeros[:, :, None]).clamp(0, top)
    return QuantisedWeights(
        packed=pack(levels.to(torch.uint8).reshape(n, -1)[:, :k], bits),
        scales=scales.T.contiguous(),
        zeros=zeros.to(weights.dtype).T.contiguous() if zero_point else None,
        bits=bits,
        group_size=group_size,
        n=n,
        k=k,
    )


def dequantise(weights: QuantisedWeights) -> torch.Tensor:
    """What the stored numbers mean, fp64 [n, k]."""
    import torch

    levels = unpack(weights.packed, weights.bits, weights.k).double()
    group_of = torch.arange(weights.k, device=levels.device) // (weights.group_size or weights.k)
    scales = weights.scales.double().T[:, group_of]  # [n, k]
    if weights.zeros is None:
        return (levels - float(1 << (weights.bits - 1))) * scales
    return (levels - weights.zeros.double().T[:, group_of]) * scales


def _check_bits(bits: int) -> None:
    if bits not in (4, 8):
        raise UsageError(f"bits={bits}: weights have 4 or 8 bits")
