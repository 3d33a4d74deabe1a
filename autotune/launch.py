"""One kernel launch in numbers: all that the cost model wants to know of it.

A field is a number, or an array with an element for each of many configurations that are judged at
once. The compiler's reports give these facts exactly (`from_report`); for kernels that were not
compiled, or are not ours, `tiles` estimates them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autotune.arch import GpuArch
from autotune.kernels.spec import Work
from autotune.occupancy import occupancy
from autotune.records import CompileReport

Numbers = Any
"""A float, or a float64 array of shape [configs]."""

WARP_LEVEL, WARP_GROUP, NO_MATRIX = 0, 1, 2
"""Classes of matrix instructions: mma and mfma; wgmma and tcgen05; none."""

_CLASS = {"mma": WARP_LEVEL, "mfma": WARP_LEVEL, "wgmma": WARP_GROUP, "tcgen05": WARP_GROUP}
_LANE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Launch:
    """Facts of one entry point's launch; totals over the grid unless said otherwise."""

    grid: Numbers
    loop_steps: Numbers
    """Main-loop iterations of a program, mean."""
    longest_steps: Numbers
    flops: Numbers
    matrix_class: Numbers
    peak_tflops: Numbers
    """Peak of the unit that does `flops`."""
    dram_bytes: Numbers
    l2_bytes: Numbers
    step_bytes: Numbers
    """Bytes a program loads from global memory per iteration."""
    shared_step_bytes: Numbers
    """Bytes a program moves through shared memory per iteration, both ways."""
    instructions: Numbers
    """Instructions of one warp per iteration."""
    warps: Numbers
    blocks: Numbers
    """Programs that fit on an SM."""
    depth: Numbers
    """Tiles in flight ahead of their use; 0 where every iteration waits for its own loads."""
    spilled: Numbers = 0.0
    """Registers per thread beyond what a thread has."""
    atomic_bytes: Numbers = 0.0
    """Bytes added to global memory atomically."""
    fills: Numbers = 0.0
    """Launches before it that only set memory."""
    unpack: Numbers = 0.0
    """Estimated instructions of one warp per iteration that unpack weights, beyond `instructions`;
    a compiler's report counts them there."""
    rows: Numbers = 64.0
    """Tile of the product in one iteration: rows, columns, depth; see `Work.tile`."""
    cols: Numbers = 64.0
    tile_depth: Numbers = 64.0

    @classmethod
    def from_report(cls, work: Work, report: CompileReport, arch: GpuArch) -> Launch:
        """Facts of a compiled entry point."""
        loop = report.loop
        if not work.flops or report.mma is None or work.matrix_dtype is None:
            matrix_class, dtype = NO_MATRIX, "fp32"
        else:
            matrix_class, dtype = _CLASS[report.mma], work.matrix_dtype
        accesses = loop.get("load_shared", 0) + loop.get("store_shared", 0)
        depth = 0.0
        if loop.get("async_copy") or report.mma == "tcgen05":
            # Shared memory tells how many tiles are in flight.
            depth = max(1.0, min(report.num_stages - 1.0, report.shared_bytes / work.step_bytes))
        elif arch.vendor == "amd" and report.num_stages > 1:
            depth = 1.0  # the next tile waits in registers
        return cls(
            grid=work.grid,
            loop_steps=work.loop_steps,
            longest_steps=work.longest_steps,
            flops=work.flops,
            matrix_class=matrix_class,
            peak_tflops=arch.peak_tflops.get(dtype, arch.peak_tflops["fp32"]),
            dram_bytes=work.dram_bytes,
            l2_bytes=work.l2_bytes,
            step_bytes=work.step_bytes,
            shared_step_bytes=accesses * report.num_warps * arch.warp_size * _LANE_BYTES,
            instructions=sum(loop.values()),
            warps=report.num_warps,
            blocks=max(1, occupancy(report, arch).blocks),
            depth=depth,
            atomic_bytes=work.atomic_bytes,
            fills=work.fills,
            rows=float(work.tile[0]),
            cols=float(work.tile[1]),
            tile_depth=float(work.tile[2]),
        )
