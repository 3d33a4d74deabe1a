"""One GPU product as data: what its row of the table says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MIB, GIB = 1 << 20, 1 << 30
FP16, BF16, FP8, INT8, FP32 = "fp16", "bf16", "fp8", "int8", "fp32"


@dataclass(frozen=True, slots=True)
class GpuArch:
    """One GPU product. Rates are dense peaks at boost clock; sizes are in bytes."""

    name: str
    """Short name used on the command line and as folder name under `results/`."""
    title: str
    """Product name as the vendor writes it."""
    target: str
    """Compiler target: "sm_80" … "sm_120", or "gfx942"."""
    sm_count: int
    """Streaming multiprocessors, or compute units."""
    clock_mhz: int
    """Boost (peak engine) clock. Matrix rates of Hopper and B200 are quoted at a lower one, which
    `source` gives."""
    registers_per_sm: int
    """32-bit registers of one SM (AMD: vector registers of the four SIMDs)."""
    max_registers_per_thread: int
    shared_bytes_per_sm: int
    shared_bytes_per_block: int
    """Most dynamic shared memory (LDS) one block may ask for."""
    max_threads_per_sm: int
    max_blocks_per_sm: int
    l2_bytes: int
    dram_bytes: int
    dram_gbs: float
    """Peak device-memory bandwidth, 10^9 bytes per second."""
    peak_tflops: Mapping[str, float] = field(hash=False)
    """Dense matrix-unit peak by dtype (fp16, bf16, fp8, int8; floats accumulate in fp32), and fp32
    outside of the matrix unit, 10^12 operations per second. A dtype without matrix instructions is
    absent."""
    device_names: tuple[str, ...]
    """Regular expressions matched in full, ignoring case, against the driver's device name."""
    source: str
    """Where the figures come from."""

    @property
    def vendor(self) -> str:
        """Return "amd" or "nvidia"."""
        return "amd" if self.target.startswith("gfx") else "nvidia"

    @property
    def warp_size(self) -> int:
        """Threads that execute together."""
        return 64 if self.vendor == "amd" else 32

    @property
    def capability(self) -> int:
        """Compute capability as Triton counts it (80, 89, 90, 100, 120); 0 on AMD."""
        return int(self.target.removeprefix("sm_")) if self.vendor == "nvidia" else 0

    def supports(self, dtype: str) -> bool:
        """Whether the matrix unit takes `dtype`."""
        return dtype in self.peak_tflops
