"""vLLM's fused-MoE winners: one configuration for the gate-up and the down product of experts.

Mapping (after vLLM's `benchmark_moe.py` and fused-MoE kernel, Apache-2.0): two plain tiled GEMMs,
[rows, hidden] x [hidden, 2 n] and [rows, n] x [n, hidden], where rows = tokens * top_k are spread
over the experts evenly at random, and each expert's rows are padded to whole tiles. With one expert
that is our fused MLP. Hidden size and top_k are not in the records: top_k is that of well-known
models with so many experts, and hidden size 4096, or 2048 where those models are small.

The legal space is the tuner's: on AMD finer tiles and one depth of pipelining.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.arch import GpuArch
from autotune.launch import Launch
from autotune.tiles import Tiles, estimate_gemm, legal_gemm
from autotune.winners.case import Candidates, Case, Columns, fitting, grid, make_case, powers

REQUIRED = (
    "experts", "n", "tokens",
    "block_m", "block_n", "block_k", "group_m", "num_warps", "num_stages",
)  # fmt: skip

_TOP_K = {1: 1, 8: 2, 16: 2, 32: 4, 60: 4, 62: 6, 64: 6, 72: 6, 160: 6, 512: 10}
_HIDDEN = {60: 2048, 512: 2048}
_CUDA_SPACE = {
    "block_m": powers(16, 256),
    "block_n": powers(32, 256),
    "block_k": powers(64, 256),
    "group_m": (1, 16, 32, 64),
    "num_warps": (4, 8),
    "num_stages": (2, 3, 4, 5),
}
_ROCM_SPACE = {
    "block_m": powers(16, 256),
    "block_n": powers(16, 256),
    "block_k": powers(16, 256),
    "group_m": (1, 4, 8, 16, 32),
    "num_warps": (1, 2, 4, 8),
    "num_stages": (2,),
}


@dataclass(frozen=True, slots=True)
class Gemm:
    """A product over experts: [rows, k] x [k, n], of elements of `dtype`."""

    experts: int
    rows: int
    n: int
    k: int
    dtype: str = "fp16"

    @property
    def size(self) -> float:
        """Bytes of an element."""
        return 1.0 if self.dtype in ("fp8", "int8") else 2.0

    @property
    def active(self) -> float:
        """Experts that get any row, expected."""
        return self.experts * (1.0 - (1.0 - 1.0 / self.experts) ** self.rows)

    @property
    def operand_bytes(self) -> float:
        """Rows and the weights of active experts, once."""
        return self.size * self.k * (self.rows + self.active * self.n)

    @property
    def out_bytes(self) -> float:
        """16-bit outputs."""
        return 2.0 * self.rows * self.n


def cases(gpu: GpuArch, rows: Sequence[Mapping[str, Any]]) -> Iterator[Case | None]:
    """One case per problem of a file; None where no record of a problem is legal."""
    knobs = grid(_ROCM_SPACE if gpu.vendor == "amd" else _CUDA_SPACE)
    problems: dict[tuple[int, int, int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        key = (row["experts"], row["n"], row["tokens"], str(row.get("dtype", "fp16")))
        problems[key].append(row)
    for (experts, n, tokens, dtype), records in problems.items():
        routed = tokens * _TOP_K.get(experts, 8)
        hidden = _HIDDEN.get(experts, 4096)
        up = gemm_candidates(gpu, Gemm(experts, routed, 2 * n, hidden, dtype), knobs)
        down = gemm_candidates(gpu, Gemm(experts, routed, hidden, n, dtype), knobs)
        both = Candidates(knobs, up.launches + down.launches, up.legal & down.legal)
        problem = {"experts": experts, "n": n, "tokens": tokens, "dtype": dtype}
        yield make_case("vllm fused_moe", gpu, "gemm", problem, both, records)


def gemm_candidates(gpu: GpuArch, gemm: Gemm, knobs: Columns) -> Candidates:
    """A plain tiled GEMM's launch for every configuration of `knobs`."""
    rows, cols, depth = knobs["block_m"], knobs["block_n"], knobs["block_k"]
    ones = np.ones_like(rows)
    splits, group_m = knobs.get("split_k", ones), knobs.get("group_m", ones)
    tiles = Tiles(rows, cols, depth, knobs["num_warps"], knobs["num_stages"])
    estimate = estimate_gemm(tiles, gpu, gemm.size)
    fit = fitting(estimate.registers, estimate.shared_bytes, knobs["num_warps"], gpu)
    if gemm.experts == 1:
        row_tiles = np.ceil(gemm.rows / rows)
    else:  # the last tile of an expert is half empty, on average
        row_tiles = np.ceil(gemm.active * np.maximum(1.0, gemm.rows / gemm.active / rows + 0.5))
    col_tiles = np.ceil(gemm.n / cols)
    steps = np.ceil(gemm.k / depth / splits)
    programs = row_tiles * col_tiles * splits
    step_bytes = (rows + cols) * depth * gemm.size
    resident = np.minimum(programs, gpu.sm_count * fit["blocks"])
    launch = Launch(
        grid=programs,
        loop_steps=steps,
        longest_steps=steps,
        flops=2.0 * programs * rows * cols * depth * steps,
        matrix_class=estimate.matrix_class,
        peak_tflops=gpu.peak_tflops.get(gemm.dtype, gpu.peak_tflops["fp16"]),
        dram_bytes=gemm.operand_bytes
        + gemm.out_bytes
        + _evicted_bytes(gpu, gemm, knobs, row_tiles, col_tiles, programs / resident, group_m),
        l2_bytes=programs * steps * step_bytes + gemm.out_bytes * splits,
        step_bytes=step_bytes,
        shared_step_bytes=estimate.shared_step_bytes,
        instructions=estimate.instructions,
        depth=estimate.depth,
        atomic_bytes=np.where(splits > 1, gemm.out_bytes * splits, 0.0),
        rows=rows,
        cols=cols,
        tile_depth=depth,
        **fit,
    )
    return Candidates(knobs, (launch,), legal_gemm(estimate, gpu))


def _evicted_bytes(
    gpu: GpuArch,
    gemm: Gemm,
    knobs: Columns,
    row_tiles: Any,
    col_tiles: Any,
    rounds: Any,
    group_m: Any,
) -> Any:
    """Bytes that a round of programs reads again because L2 has lost them since the last.

    A round covers `group_m` rows of tiles times as many columns as it has programs for; between
    rounds nothing is reused, as far as the operands exceed L2.
    """
    group = np.minimum(group_m, row_tiles)
    per_round = row_tiles * col_tiles / np.maximum(1.0, rounds)
    across = np.minimum(col_tiles, np.ceil(per_round / group))
    round_bytes = (group * knobs["block_m"] + across * knobs["block_n"]) * gemm.k * gemm.size
    lost = max(0.0, 1.0 - 0.8 * gpu.l2_bytes / gemm.operand_bytes)
    again = np.maximum(0.0, np.ceil(rounds) * round_bytes - gemm.operand_bytes)
    return again * lost * (1.0 if gemm.experts == 1 else 0.5)
