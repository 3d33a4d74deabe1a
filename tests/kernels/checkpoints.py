"""Quantised layers as checkpoints store them, made and read with Python's integers only."""

from __future__ import annotations

from dataclasses import dataclass

import torch

AWQ_SHIFTS = [4 * place for place in (0, 4, 1, 5, 2, 6, 3, 7)]
"""Of the nibble that holds column i of eight."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What a layer means: w[n][k] = (level - zero of the group) * scale of the group."""

    levels: torch.Tensor  # int64 [n, k]
    zeros: torch.Tensor  # int64 [groups, n]
    scales: torch.Tensor  # [groups, n]
    group_of: torch.Tensor  # int64 [k]

    def weights(self) -> torch.Tensor:
        """fp64 [n, k]."""
        zeros, scales = (rows.double()[self.group_of].T for rows in (self.zeros, self.scales))
        return (self.levels.double() - zeros) * scales


def random_layer(
    n: int, k: int, bits: int, group_size: int, seed: int, act_order: bool = False
) -> Layer:
    """Every level and zero, extremes included; scales among which one is zero."""
    draw = torch.Generator().manual_seed(seed)
    size = group_size if group_size > 0 else k
    groups = -(-k // size)
    zeros = torch.randint(0, 1 << bits, (groups, n), generator=draw)
    zeros.view(-1)[0], zeros.view(-1)[-1] = 0, (1 << bits) - 1
    scales = (torch.rand((groups, n), generator=draw) + 0.5) / 16
    scales[0, n // 2] = 0.0
    group_of = torch.arange(k) // size
    if act_order:
        group_of = group_of[torch.randperm(k, generator=draw)]
    return Layer(
        levels=torch.randint(0, 1 << bits, (n, k), generator=draw),
        zeros=zeros,
        scales=scales.half(),
        group_of=group_of,
    )


def signed(word: int) -> int:
    """A 32-bit word as int32 has it."""
    return word - (1 << 32) if word >= 1 << 31 else word


def words(rows: list[list[int]], bits: int) -> torch.Tensor:
    """Rows of small integers in words, lowest bits first: int32 [rows, words]."""
    fields = 32 // bits
    packed = [
        [
            signed(sum(value << (bits * i) for i, value in enumerate(row[at : at + fields])))
            for at in range(0, len(row), fields)
        ]
        for row in rows
    ]
    return torch.tensor(packed, dtype=torch.int32)


def gptq_tensors(layer: Layer, bits: int, version: int) -> dict[str, torch.Tensor]:
    """What a file holds of a layer; version 1 subtracts a word of ones, as GPTQModel does."""
    qzeros = words(layer.zeros.tolist(), bits)
    if version == 1:
        ones = sum(1 << (bits * field) for field in range(32 // bits))
        lowered = [[signed((word - ones) % (1 << 32)) for word in row] for row in qzeros.tolist()]
        qzeros = torch.tensor(lowered, dtype=torch.int32)
    return {
        "qweight": words(layer.levels.tolist(), bits).T.contiguous(),
        "qzeros": qzeros,
        "scales": layer.scales,
        "g_idx": layer.group_of.int(),
    }


def awq_tensors(layer: Layer) -> dict[str, torch.Tensor]:
    """The same for AWQ, version "gemm"."""

    def shuffled(rows: list[list[int]]) -> torch.Tensor:
        packed = [
            [
                signed(sum(row[at + i] << AWQ_SHIFTS[i] for i in range(8)))
                for at in range(0, len(row), 8)
            ]
            for row in rows
        ]
        return torch.tensor(packed, dtype=torch.int32)

    return {
        "qweight": shuffled(layer.levels.T.tolist()),
        "qzeros": shuffled(layer.zeros.tolist()),
        "scales": layer.scales,
    }
