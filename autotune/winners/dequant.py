"""gemlite's winners: linear layers over 4-bit weights, or over 8-bit ones with 8-bit inputs.

Mapping (after gemlite's kernels and autotuning spaces, github.com/dropbox/gemlite, Apache-2.0):

* `gemm`, `gemm_splitk`: our GEMM and split-K GEMM with the same tile, warps and stages; K is split
  over `split_k` programs that add to the output atomically. 4-bit weights lie eight to a word along
  K and each word is loaded once per weight, so a weight takes 4 bytes on its way; 8-bit ones are
  plain int8 operands.
* `gemv_revsplitk`: a program sums 2 * block_k of K for block_n columns, and adds atomically; kind
  `gemv_rows`.
* `gemv_splitk`: a program walks K in steps of block_k, for block_n columns; our GEMV.

The legal space is the tuner's own: rows by the size of m, powers of two for the rest, a step inside
a group. Its versions pinned `num_stages` differently, so that takes what a file's records of a
kind show, if at least 1 % of them do. Load order, waves per EU and instruction shape are left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.arch import GpuArch
from autotune.launch import NO_MATRIX, Launch
from autotune.tiles import Tiles, estimate_gemm, legal_gemm
from autotune.winners.case import (
    Candidates,
    Case,
    Columns,
    fitting,
    grid,
    keep,
    make_case,
    powers,
)

REQUIRED = (
    "kind", "m", "n", "k", "group_size", "weight_bits", "activation_dtype",
    "block_m", "block_n", "block_k", "split_k", "num_warps", "num_stages",
)  # fmt: skip
GEMV_KINDS = {"gemv_revsplitk": "gemv_rows", "gemv_splitk": "gemv", "gemv": "gemv"}
_MOST_TILE_WEIGHTS = 32768
_WORD_WEIGHTS = 8


@dataclass(frozen=True, slots=True)
class Layer:
    """What is multiplied: out [m, n] = x [m, k] times packed weights."""

    kind: str
    bits: int
    dtype: str
    m: int
    n: int
    k: int
    group: int

    @property
    def packed(self) -> bool:
        """Whether several weights share a word."""
        return self.bits < 8

    @property
    def input_bytes(self) -> float:
        """Of an element of x."""
        return 1.0 if self.dtype in ("int8", "fp8") else 2.0

    @property
    def dram_bytes(self) -> float:
        """Weights, a scale and a zero per group, x, out."""
        weights = self.n * self.k * self.bits / 8 + 4 * self.n * self.k / self.group
        return weights + self.m * self.k * self.input_bytes + self.out_bytes

    @property
    def out_bytes(self) -> float:
        """16-bit outputs."""
        return 2.0 * self.m * self.n


def cases(gpu: GpuArch, rows: Sequence[Mapping[str, Any]]) -> Iterator[Case | None]:
    """One case per problem of a file; None where no record of a problem is legal."""
    problems: dict[Layer, list[Mapping[str, Any]]] = defaultdict(list)
    stages: dict[tuple[str, int], Counter[int]] = defaultdict(Counter)
    for row in rows:
        layer = Layer(
            row["kind"], row["weight_bits"], row["activation_dtype"],
            row["m"], row["n"], row["k"], row["group_size"],
        )  # fmt: skip
        problems[layer].append(row)
        stages[layer.kind, layer.bits][row["num_stages"]] += 1
    for layer, records in problems.items():
        seen = stages[layer.kind, layer.bits]
        usual = sorted(s for s, count in seen.items() if count >= 0.01 * seen.total())
        gemv = layer.kind in GEMV_KINDS
        candidates = _gemv(gpu, layer) if gemv else _gemm(gpu, layer, usual)
        kind = GEMV_KINDS.get(layer.kind, "dequant" if layer.packed else "gemm")
        problem = {"m": layer.m, "n": layer.n, "k": layer.k, "group": layer.group}
        family = f"gemlite {layer.kind} w{layer.bits}"
        yield make_case(family, gpu, kind, problem, candidates, records)


def _rows_to_try(layer: Layer) -> tuple[int, ...]:
    if layer.m <= 16:
        return (16,)
    if layer.m <= 32:
        return (16, 32)
    if layer.m <= 64 or layer.kind == "gemm_splitk":
        return (32, 64)
    return (64, 128) if layer.m <= 128 else (64, 128, 256)


def _gemm(gpu: GpuArch, layer: Layer, stages: Sequence[int]) -> Candidates:
    most_splits = (8 if layer.m >= 32 else 16) if layer.kind == "gemm_splitk" else 1
    knobs = grid(
        {
            "block_m": _rows_to_try(layer),
            "block_n": powers(32, 512),
            "block_k": powers(32, 512),
            "split_k": powers(1, most_splits),
            "num_warps": (4, 8),
            "num_stages": stages,
        }
    )
    depth, cols = knobs["block_k"], knobs["block_n"]
    fits = (depth <= max(32, layer.group)) & (cols <= layer.n)
    fits &= np.mod(layer.k, depth * knobs["split_k"]) == 0
    knobs = keep(knobs, fits)
    rows, cols, depth = knobs["block_m"], knobs["block_n"], knobs["block_k"]
    tiles = Tiles(rows, cols, depth, knobs["num_warps"], knobs["num_stages"])
    size = layer.input_bytes
    estimate = estimate_gemm(tiles, gpu, size, 4.0 if layer.packed else None)
    # The tuner's own estimate of shared memory, by which it cuts stages.
    tile_bytes = rows * depth * size + cols * depth * (4 + size if layer.packed else 1.0)
    legal = legal_gemm(estimate, gpu)
    legal &= tile_bytes * knobs["num_stages"] <= gpu.shared_bytes_per_block
    steps = np.ceil(layer.k / depth / knobs["split_k"])
    programs = np.ceil(layer.m / rows) * np.ceil(layer.n / cols) * knobs["split_k"]
    step_bytes = rows * depth * size + cols * depth * layer.bits / 8
    splits = knobs["split_k"]
    launch = Launch(
        grid=programs,
        loop_steps=steps,
        longest_steps=steps,
        flops=2.0 * programs * rows * cols * depth * steps,
        matrix_class=estimate.matrix_class,
        peak_tflops=_peak(gpu, layer.dtype),
        dram_bytes=layer.dram_bytes,
        l2_bytes=programs * steps * step_bytes + layer.out_bytes * splits,
        step_bytes=step_bytes,
        shared_step_bytes=estimate.shared_step_bytes,
        instructions=estimate.instructions,
        unpack=estimate.unpack,
        depth=estimate.depth,
        atomic_bytes=np.where(splits > 1, layer.out_bytes * splits, 0.0),
        rows=rows,
        cols=cols,
        tile_depth=depth,
        **fitting(estimate.registers, estimate.shared_bytes, knobs["num_warps"], gpu),
    )
    return Candidates(knobs, (launch,), legal)


def _gemv(gpu: GpuArch, layer: Layer) -> Candidates:
    knobs = _gemv_space(gpu, layer)
    over_programs = layer.kind == "gemv_revsplitk"
    cols, depth, warps = knobs["block_n"], knobs["block_k"], knobs["num_warps"]
    steps = np.full_like(depth, 2.0) if over_programs else np.ceil(layer.k / depth)
    ranges = np.ceil(layer.k / depth / 2) if over_programs else np.ones_like(depth)
    programs = np.ceil(layer.n / cols) * ranges
    lanes = warps * gpu.warp_size
    # Lanes take 16 bytes: four columns where words are packed along K, else sixteen of K. Those
    # that hold parts of one sum exchange them: by shuffles in a warp, by shared memory beyond it.
    per_lane = 4.0 if layer.packed else 16.0
    sharing = np.maximum(1, lanes * per_lane / cols) if layer.packed else np.minimum(
        lanes, depth / per_lane
    )  # fmt: skip
    elements = np.maximum(cols * depth / lanes, per_lane)
    results = np.maximum(1.0, cols * np.minimum(sharing, lanes) / lanes)
    shuffles = 2 * results * np.log2(np.clip(sharing, 1, gpu.warp_size))
    exchange = np.where(sharing > gpu.warp_size, 40 + results, 0.0)
    per_step = 1.0 if over_programs else 1.0 / steps
    step_bytes = cols * depth * (4.0 if layer.packed else 1.0)
    registers = 24 + elements * (2.0 if layer.packed else 1.25)
    out_bytes = layer.out_bytes
    launch = Launch(
        grid=programs,
        loop_steps=steps,
        longest_steps=steps,
        flops=2.0 * layer.n * layer.k,
        matrix_class=NO_MATRIX,
        peak_tflops=gpu.peak_tflops["fp32"],
        dram_bytes=layer.dram_bytes,
        l2_bytes=layer.dram_bytes + programs * steps * depth * 2 + out_bytes * ranges,
        step_bytes=step_bytes,
        shared_step_bytes=step_bytes * (0.25 if over_programs else 0.1),
        instructions=elements + 20 + (shuffles + exchange) * per_step,
        unpack=elements * (4.0 if layer.packed else 2.0),
        depth=np.where((knobs["num_stages"] > 1) & (steps > 2), 1.0, 0.0),
        atomic_bytes=out_bytes * ranges if over_programs else 0.0,
        rows=np.full_like(cols, 64.0),
        cols=cols,
        tile_depth=depth,
        **fitting(registers, np.full_like(cols, 512.0), warps, gpu),
    )
    return Candidates(knobs, (launch,), np.ones(len(cols), dtype=bool))


def _gemv_space(gpu: GpuArch, layer: Layer) -> Columns:
    amd = gpu.vendor == "amd"
    space: dict[str, Sequence[int]] = {"block_m": (1,)}
    if layer.kind == "gemv_revsplitk":
        space |= {"block_n": powers(32, 1024 if amd else 512), "block_k": powers(8, 64)}
        space |= {"num_warps": (1, 2, 4)}
    else:
        space |= {"block_n": powers(1, 64), "block_k": powers(32, 4096)}
        space |= {"num_warps": (4,) if amd else (4, 8)}
    knobs = grid(space | {"split_k": (1,), "num_stages": (1, 2)})
    depth, weights = knobs["block_k"], knobs["block_k"] * knobs["block_n"]
    if layer.kind == "gemv_revsplitk":
        return keep(knobs, (2 * depth <= layer.group) | (depth == _WORD_WEIGHTS))
    inside = (weights >= 1024) & (weights <= _MOST_TILE_WEIGHTS) & (depth <= layer.k)
    return keep(knobs, inside)


def _peak(gpu: GpuArch, dtype: str) -> float:
    return gpu.peak_tflops.get(dtype, gpu.peak_tflops["fp16"])
