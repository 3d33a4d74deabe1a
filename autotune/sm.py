"""What one streaming multiprocessor (AMD: compute unit) has, as data: one row per target."""

from __future__ import annotations

from typing import TypedDict

_KIB = 1 << 10


class Sm(TypedDict):
    """The fields of `GpuArch` that all products of one compiler target share."""

    target: str
    registers_per_sm: int
    max_registers_per_thread: int
    shared_bytes_per_sm: int
    shared_bytes_per_block: int
    max_threads_per_sm: int
    max_blocks_per_sm: int


def _nvidia(target: str, shared_kib: int, threads: int, blocks: int) -> Sm:
    """Limits of one SM, from the CUDA C++ Programming Guide, "Technical Specifications".

    CUDA keeps 1 KiB of shared memory per block for itself, so a block may ask for 1 KiB less than
    an SM has.
    """
    return {
        "target": target,
        "registers_per_sm": 65_536,
        "max_registers_per_thread": 255,
        "shared_bytes_per_sm": shared_kib * _KIB,
        "shared_bytes_per_block": (shared_kib - 1) * _KIB,
        "max_threads_per_sm": threads,
        "max_blocks_per_sm": blocks,
    }


SM_80 = _nvidia("sm_80", shared_kib=164, threads=2_048, blocks=32)
SM_86 = _nvidia("sm_86", shared_kib=100, threads=1_536, blocks=16)
SM_89 = _nvidia("sm_89", shared_kib=100, threads=1_536, blocks=24)
SM_90 = _nvidia("sm_90", shared_kib=228, threads=2_048, blocks=32)
SM_100 = _nvidia("sm_100", shared_kib=228, threads=2_048, blocks=32)
SM_120 = _nvidia("sm_120", shared_kib=100, threads=1_536, blocks=24)

# AMD CDNA 3 instruction set guide and white paper. A compute unit has four SIMDs; each holds eight
# waves of 64 threads and 512 vector registers (of 64 lanes). Blocks: at least one wave each.
GFX942: Sm = {
    "target": "gfx942",
    "registers_per_sm": 4 * 512 * 64,
    "max_registers_per_thread": 512,
    "shared_bytes_per_sm": 64 * _KIB,
    "shared_bytes_per_block": 64 * _KIB,
    "max_threads_per_sm": 4 * 8 * 64,
    "max_blocks_per_sm": 4 * 8,
}
