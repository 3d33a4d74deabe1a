"""What a tiled kernel would compile to, estimated from its tile alone; arrays over configurations.

The rules are those of Triton's layouts: how warps are spread over a product (`warpsPerTile` of
matrix instructions), how many buffers its pipeliner makes (one per stage for warp groups, else one
less), and which operand waits in registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.arch import GpuArch
from autotune.launch import WARP_GROUP, WARP_LEVEL

Array = NDArray[np.float64]

_BASE_REGISTERS = 40.0
"""Addresses, loop counter, predicates."""
_BASE_INSTRUCTIONS = 30.0
"""Of one warp per iteration: the loop itself, barriers, pointer increments."""
_LANE_BYTES = 16
_SCORE_INSTRUCTIONS = 9.0
"""Of one lane per score: scale, mask, maximum, subtract, exponential, sum, convert."""
_UNPACK_INSTRUCTIONS = 6.0
"""Of one lane, to shift, mask, convert, subtract a zero and scale a packed weight."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """Columns over configurations: one product [rows, cols] += [rows, depth] x [depth, cols]."""

    rows: Array
    cols: Array
    depth: Array
    warps: Array
    stages: Array


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated compile facts, over configurations; names as in `Launch` and `CompileReport`."""

    registers: Array
    shared_bytes: Array
    accumulators: Array
    """Registers per thread that hold sums."""
    matrix_class: Array
    shared_step_bytes: Array
    instructions: Array
    unpack: Array
    """Instructions of one warp per iteration that unpack weights, beyond `instructions`."""
    depth: Array


def has_warp_groups(rows: Array, warps: Array, arch: GpuArch) -> Any:
    """Where a product becomes a warp group's instructions (wgmma, tcgen05)."""
    return (rows >= 64) & (warps >= 4) & (arch.capability in (90, 100))


def warp_spread(rows: Array, cols: Array, warps: Array, width: int) -> tuple[Array, Array]:
    """Warps along rows and along columns of a product of 16 x `width` instructions."""
    down, across = np.ones_like(rows), np.ones_like(rows)
    for _ in range(4):  # up to 16 warps
        more = down * across < warps
        tall = (rows / 16 / down >= cols / (2 * width) / across) & (down < rows / 16)
        down = np.where(more & tall, 2 * down, down)
        across = np.where(more & ~tall, 2 * across, across)
    return down, across


def estimate_gemm(
    t: Tiles, arch: GpuArch, operand_bytes: float, packed_bytes: Array | float | None = None
) -> Estimate:
    """Facts of a GEMM's loop; an operand has `operand_bytes` an element in the matrix unit.

    `packed_bytes` says what a weight that has to be unpacked takes in its buffer: 4 where eight
    nibbles share a word that is loaded anew for each; None for plain weights.
    """
    amd, unpacked = arch.vendor == "amd", packed_bytes is not None
    lanes, width = t.warps * arch.warp_size, 16 if amd else 8
    wide = has_warp_groups(t.rows, t.warps, arch)
    group = wide.astype(np.float64)
    down, across = warp_spread(t.rows, t.cols, t.warps, width)
    row_tile, col_tile = t.rows * t.depth * operand_bytes, t.cols * t.depth * operand_bytes
    raw_tile = t.cols * t.depth * packed_bytes if packed_bytes is not None else col_tile
    piped = t.stages > 1
    buffers = np.where(wide, t.stages, np.maximum(1.0, t.stages - 1))
    if unpacked:
        # Unpacked weights pass through registers; a warp group reads them from shared memory again.
        shared = np.where(piped, buffers * (row_tile + raw_tile), row_tile) + group * col_tile
    else:
        shared = np.where(piped, buffers, 1.0) * (row_tile + col_tile)
    accumulators = t.rows * t.cols / lanes
    # Without asynchronous copies the next tile waits in registers.
    staging = (row_tile + raw_tile) / 4 / lanes * (1.0 if amd else 1.0 - piped)
    fragments = (t.rows / down + t.cols / across) * 32 * operand_bytes / 4 / arch.warp_size
    registers = _BASE_REGISTERS + accumulators + staging + (1 - group) * fragments
    if unpacked:
        registers = registers + (col_tile + raw_tile) / 4 / lanes
    read = np.where(
        wide,
        row_tile * np.maximum(1.0, t.cols / 256) + col_tile * t.rows / 64,
        row_tile * across + col_tile * down,
    )
    written = row_tile + raw_tile + (group * col_tile if unpacked else 0.0)
    products = t.rows * t.cols * t.depth * operand_bytes / 2
    # A warp group's instruction is issued by four warps.
    matrix = np.where(wide, 4 * products / (64 * 256 * 16), products / (16 * width * 16))
    warp_bytes = _LANE_BYTES * arch.warp_size
    accesses = (1 - group) * read / warp_bytes + 3 * (row_tile + raw_tile) / warp_bytes
    weights = t.cols * t.depth / lanes if unpacked else np.zeros_like(t.cols)
    return Estimate(
        registers=registers,
        shared_bytes=shared,
        accumulators=accumulators,
        matrix_class=np.where(wide, WARP_GROUP, WARP_LEVEL),
        shared_step_bytes=read + written,
        instructions=(matrix + accesses) / t.warps + _BASE_INSTRUCTIONS,
        unpack=_UNPACK_INSTRUCTIONS * weights,
        depth=np.where(piped, np.maximum(1.0, t.stages - 1) if amd else buffers, 0.0),
    )


def estimate_attention(
    t: Tiles,
    dim: Array | float,
    buffers: Array,
    arch: GpuArch,
    load_instructions: Array | float,
    stored_bytes: float = 2.0,
    convert_instructions: Array | float = 0.0,
) -> Estimate:
    """Facts of an attention loop: `t.rows` queries, `t.cols` keys of `dim` elements of 16 bits.

    `buffers` are the tiles of keys and values in flight, 0 where every iteration waits for its own;
    a lane takes `load_instructions` to find and copy 16 bytes. In memory an element of keys and
    values has `stored_bytes`; a lane takes `convert_instructions` to make 16 bits of it.
    """
    amd = arch.vendor == "amd"
    lanes, warp_bytes = t.warps * arch.warp_size, float(_LANE_BYTES * arch.warp_size)
    wide = has_warp_groups(t.rows, t.warps, arch)
    kv_tile, q_tile = 2.0 * stored_bytes * t.cols * dim, 2.0 * t.rows * dim
    piped = buffers > 0
    shared = np.maximum(1.0, buffers) * kv_tile + np.where(wide, q_tile, 0.0)
    if amd:
        shared = np.where(piped, shared, kv_tile / 2)
    repeats = np.where(wide, 0.0, np.maximum(1.0, 16 * t.warps / t.rows))
    accumulators = t.rows * (dim + t.cols) / lanes
    registers = _BASE_REGISTERS + accumulators + t.rows * t.cols / 2 / lanes
    registers = registers + q_tile / 4 * repeats / lanes
    registers = registers + np.where(piped, 0.0, kv_tile / 8 / lanes)
    # Warps go along rows, sixteen each; what is left goes along keys and exchanges its scores.
    down = np.minimum(t.warps, t.rows / 16)
    products, width = 2 * t.rows * t.cols * dim, 16 if amd else 8
    matrix = np.where(wide, 4 * products / (64 * 128 * 16), products / (16 * width * 16))
    read = np.where(wide, kv_tile * t.rows / 64, kv_tile * down)
    read = read + np.where(t.warps > down, 4.0 * t.rows * t.cols, 0.0)
    per_program = (
        matrix
        + np.where(wide, 0.0, read / warp_bytes)
        + load_instructions * kv_tile / warp_bytes
        + _SCORE_INSTRUCTIONS * t.rows * t.cols / arch.warp_size
        + t.rows * dim / arch.warp_size
    )
    # Warps that go along rows convert every element each; a warp group shares one conversion.
    converted = 2 * t.cols * dim * np.where(wide, 1.0, down) / lanes
    return Estimate(
        registers=registers,
        shared_bytes=shared,
        accumulators=accumulators,
        matrix_class=np.where(wide, WARP_GROUP, WARP_LEVEL),
        shared_step_bytes=read + kv_tile,
        instructions=per_program / t.warps + 2 * _BASE_INSTRUCTIONS,
        unpack=convert_instructions * converted,
        depth=buffers,
    )


def blocks_per_sm(registers: Array, shared_bytes: Array, warps: Array, arch: GpuArch) -> Array:
    """Programs that fit on an SM, as `occupancy` counts them; 0 where none does."""
    registers = np.clip(registers, 1, arch.max_registers_per_thread)
    if arch.vendor == "amd":
        lane = np.ceil(registers / 8) * 8
        by_registers = 4 * np.minimum(8, arch.max_registers_per_thread // lane) // warps
        reserved, unit = 0, 1
    else:
        warp = np.ceil(registers * arch.warp_size / 256) * 256
        by_registers = 4 * (arch.registers_per_sm // 4 // warp) // warps
        reserved, unit = 1024, 128
    shared = np.ceil((shared_bytes + reserved) / unit) * unit
    by_shared = arch.shared_bytes_per_sm // np.maximum(1, shared)
    by_threads = arch.max_threads_per_sm // (warps * arch.warp_size)
    fit: Array = np.minimum(np.minimum(by_registers, by_shared), by_threads)
    return np.minimum(fit, float(arch.max_blocks_per_sm))


def legal_gemm(estimate: Estimate, arch: GpuArch) -> Any:
    """As the templates' rules: tiles fit shared memory, sums at most half of the registers."""
    most = (arch.max_registers_per_thread + 1) // 2
    fits = estimate.shared_bytes <= arch.shared_bytes_per_block
    return fits & (estimate.accumulators <= most)
