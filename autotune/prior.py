"""A guess at an uncompiled candidate's time, to decide what to compile first.

The cost model on estimated facts: tiles say what registers, shared memory and instructions a binary
will take, about. The same path prices kernels of others, whose measured winners judge the model.
Only ranks matter here; nothing of it is shown or stored.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from autotune.arch import GpuArch
from autotune.coefficients import CoefficientTable, kind_of, shipped
from autotune.config import Config
from autotune.cost_model import launch_us
from autotune.kernels.dtypes import DTYPE_BYTES
from autotune.kernels.spec import Work
from autotune.launch import NO_MATRIX, WARP_GROUP, WARP_LEVEL, Launch
from autotune.tiles import (
    Array,
    Estimate,
    Tiles,
    blocks_per_sm,
    estimate_attention,
    estimate_gemm,
    has_warp_groups,
)

_SUM_INSTRUCTIONS = 6.0
"""Of one lane per weight of a sum outside of the matrix unit, as compiled for sm_80 and gfx942."""
_LOAD_INSTRUCTIONS = {"scalar": 4.0, "pages": 5.0, "gather": 8.0}
"""Of one lane per 16 bytes of keys and values, by page lookup."""
_CONVERT_INSTRUCTIONS = {"cast": 2.5, "bits": 6.5}
"""Of one lane per number of an int8 or fp8 cache, as compiled for sm_80 and sm_90."""

Candidate = tuple[Sequence[Work], Config]
"""Works of all entry points, and the configuration that they are of."""


def guess_us(
    arch: GpuArch, works: Sequence[Work], config: Config, table: CoefficientTable | None = None
) -> float:
    """Rough time of a configuration whose binary does not exist yet."""
    return float(guess_all_us(arch, [(works, config)], table)[0])


def guess_all_us(
    arch: GpuArch, candidates: Sequence[Candidate], table: CoefficientTable | None = None
) -> Array:
    """Rough time of many configurations at once: [candidates]."""
    known = table or shipped()
    groups: dict[str, list[tuple[int, Work, Config]]] = defaultdict(list)
    for index, (works, config) in enumerate(candidates):
        for work in works:
            kind = kind_of(work.entry)
            product = "" if work.matrix_dtype else " sums"
            groups[kind + product].append((index, work, config))
    total = np.zeros(len(candidates))
    for name, members in groups.items():
        kind = name.removesuffix(" sums")
        times = launch_us(_launch(arch, kind, members), arch, known.row(kind, arch))
        np.add.at(total, [index for index, _, _ in members], times)
    return total


def _launch(arch: GpuArch, kind: str, members: Sequence[tuple[int, Work, Config]]) -> Launch:
    works = [work for _, work, _ in members]
    configs = [config for _, _, config in members]
    tiles = Tiles(
        rows=_array([work.tile[0] for work in works]),
        cols=_array([work.tile[1] for work in works]),
        depth=_array([work.tile[2] for work in works]),
        warps=_array([config.number("num_warps") for config in configs]),
        stages=_array([int(config.get("num_stages", 1)) for config in configs]),
    )
    step_bytes = _array([work.step_bytes for work in works])
    flops = _array([work.flops for work in works])
    dtype = works[0].matrix_dtype
    estimate = _estimate(arch, kind, tiles, step_bytes, works, configs)
    peak = arch.peak_tflops["fp32"] if dtype is None else arch.peak_tflops.get(
        dtype, arch.peak_tflops["fp32"]
    )  # fmt: skip
    blocks = blocks_per_sm(estimate.registers, estimate.shared_bytes, tiles.warps, arch)
    return Launch(
        grid=_array([max(1, work.grid) for work in works]),
        loop_steps=_array([work.loop_steps for work in works]),
        longest_steps=_array([work.longest_steps for work in works]),
        flops=flops,
        matrix_class=estimate.matrix_class,
        peak_tflops=peak,
        dram_bytes=_array([work.dram_bytes for work in works]),
        l2_bytes=_array([work.l2_bytes for work in works]),
        step_bytes=step_bytes,
        shared_step_bytes=estimate.shared_step_bytes,
        instructions=estimate.instructions,
        unpack=estimate.unpack,
        warps=tiles.warps,
        blocks=np.maximum(1.0, blocks),
        depth=estimate.depth,
        spilled=np.maximum(0.0, estimate.registers - arch.max_registers_per_thread),
        atomic_bytes=_array([work.atomic_bytes for work in works]),
        fills=_array([work.fills for work in works]),
        rows=tiles.rows,
        cols=tiles.cols,
        tile_depth=tiles.depth,
    )


def _estimate(
    arch: GpuArch,
    kind: str,
    tiles: Tiles,
    step_bytes: Array,
    works: Sequence[Work],
    configs: Sequence[Config],
) -> Estimate:
    dtype = works[0].matrix_dtype
    if dtype is None or kind == "other":
        return _sums(arch, tiles, step_bytes)
    size = float(DTYPE_BYTES[dtype])
    if kind == "attention":
        ahead = _array([bool(config.get("prefetch", False)) for config in configs]) > 0
        buffers = np.where(ahead, tiles.stages - 1, (tiles.stages - 1) // 2)
        buffers = np.where(tiles.stages > 1, np.maximum(1.0, buffers), 0.0)
        loads = [_LOAD_INSTRUCTIONS[str(config.get("lookup", "gather"))] for config in configs]
        stored = works[0].stored_bytes or size
        dim = step_bytes / (2 * tiles.cols * stored)
        if stored == size:
            return estimate_attention(tiles, dim, buffers, arch, _array(loads))
        converts = [_CONVERT_INSTRUCTIONS[str(c.get("fp8_decode", "cast"))] for c in configs]
        return estimate_attention(
            tiles, dim, buffers, arch, _array(loads), stored, _array(converts)
        )
    if kind == "gemm":
        return estimate_gemm(tiles, arch, size)
    # Packed weights are on the M side where operands are swapped; the estimate wants them on N's.
    swapped = _array([bool(config.get("swap_ab", False)) for config in configs]) > 0
    x_rows = np.where(swapped, tiles.cols, tiles.rows)
    columns = np.where(swapped, tiles.rows, tiles.cols)
    plain = Tiles(x_rows, columns, tiles.depth, tiles.warps, tiles.stages)
    packed = (step_bytes - x_rows * tiles.depth * size) / (columns * tiles.depth)
    estimate = estimate_gemm(plain, arch, size, np.clip(packed, 0.25, size))
    wide = has_warp_groups(tiles.rows, tiles.warps, arch)
    return dataclasses.replace(estimate, matrix_class=np.where(wide, WARP_GROUP, WARP_LEVEL))


def _sums(arch: GpuArch, tiles: Tiles, step_bytes: Array) -> Estimate:
    """A loop without matrix instructions: all by its bytes."""
    lanes = tiles.warps * arch.warp_size
    elements = 2 * step_bytes / lanes
    zeros = np.zeros_like(tiles.rows)
    return Estimate(
        registers=40 + 0.75 * elements,
        shared_bytes=zeros + 512,
        accumulators=zeros,
        matrix_class=zeros + NO_MATRIX,
        shared_step_bytes=step_bytes / 8,
        instructions=20 + _SUM_INSTRUCTIONS * elements,
        unpack=zeros,
        depth=np.where(tiles.stages > 1, 1.0, 0.0),
    )


def _array(values: Sequence[float]) -> Array:
    return np.array(values, dtype=np.float64)
