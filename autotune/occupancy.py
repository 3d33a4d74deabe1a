"""How many blocks of a kernel fit on one SM at a time: registers, shared memory, threads, slots."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.arch import GpuArch
from autotune.records import CompileReport

_CUDA_RESERVED_SHARED_BYTES = 1024
"""What the driver keeps of an SM's shared memory for each block (compute capability 8.0 and up)."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Blocks per SM, and the resource that allows no more."""

    blocks: int
    limiter: str

    def warps(self, report: CompileReport) -> int:
        """Resident warps per SM."""
        return self.blocks * report.num_warps


def occupancy(report: CompileReport, arch: GpuArch) -> Occupancy:
    """Blocks per SM; 0 if a single block does not fit.

    NVIDIA gives registers to warps in units of 256, from the quarter of them that belongs to one of
    four schedulers, and shared memory in units of 128 bytes (CUDA occupancy calculator). An AMD
    wave takes its registers from one of four SIMDs, in units of 8 per lane (CDNA 3 instruction set
    guide).
    """
    threads = report.num_warps * arch.warp_size
    if arch.vendor == "amd":
        per_lane = -(-max(1, report.registers) // 8) * 8
        waves_per_simd = min(8, arch.max_registers_per_thread // per_lane)
        by_registers = 4 * waves_per_simd // report.num_warps
        reserved, unit = 0, 1
    else:
        per_warp = -(-max(1, report.registers) * arch.warp_size // 256) * 256
        warps_per_scheduler = arch.registers_per_sm // 4 // per_warp
        by_registers = 4 * warps_per_scheduler // report.num_warps
        reserved, unit = _CUDA_RESERVED_SHARED_BYTES, 128
    shared_bytes = -(-(report.shared_bytes + reserved) // unit) * unit
    by_shared = arch.shared_bytes_per_sm // max(1, shared_bytes)
    by_threads = arch.max_threads_per_sm // threads
    blocks = min(by_registers, by_shared, by_threads, arch.max_blocks_per_sm)
    if blocks == by_registers:
        limiter = "registers"
    elif blocks == by_shared:
        limiter = "shared memory"
    else:
        limiter = "threads" if blocks == by_threads else "block slots"
    return Occupancy(blocks, limiter)
