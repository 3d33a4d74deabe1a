"""What a GPU can do, as data: one row of `GPUS` per product. Devices are found in `device`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from autotune.errors import UnknownChoiceError
from autotune.sm import GFX942, SM_80, SM_86, SM_89, SM_90, SM_100, SM_120

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


_MIB, _GIB = 1 << 20, 1 << 30

_ROWS = (
    GpuArch(
        name="a100",
        title="NVIDIA A100 80 GB SXM",
        sm_count=108,
        clock_mhz=1_410,
        l2_bytes=40 * _MIB,
        dram_bytes=80 * _GIB,
        dram_gbs=2_039.0,
        peak_tflops={FP16: 312.0, BF16: 312.0, INT8: 624.0, FP32: 19.5},
        device_names=(r"(NVIDIA )?A100-SXM4?-80GB", r"(NVIDIA )?A100 80GB PCIe"),
        source="NVIDIA A100 80 GB datasheet (2021); NVIDIA A100 Tensor Core GPU Architecture"
        " whitepaper V1.0. Also taken for the 80 GB PCIe card: the same chip with 1935 GB/s.",
        **SM_80,
    ),
    GpuArch(
        name="a100-40gb",
        title="NVIDIA A100 40 GB",
        sm_count=108,
        clock_mhz=1_410,
        l2_bytes=40 * _MIB,
        dram_bytes=40 * _GIB,
        dram_gbs=1_555.0,
        peak_tflops={FP16: 312.0, BF16: 312.0, INT8: 624.0, FP32: 19.5},
        device_names=(r"(NVIDIA )?A100-(SXM4?|PCIe)-40GB",),
        source="NVIDIA A100 Tensor Core GPU Architecture whitepaper V1.0 (2020)",
        **SM_80,
    ),
    GpuArch(
        name="a10g",
        title="NVIDIA A10G",
        sm_count=80,
        clock_mhz=1_710,
        l2_bytes=6 * _MIB,
        dram_bytes=24 * _GIB,
        dram_gbs=600.0,
        peak_tflops={FP16: 70.0, BF16: 70.0, INT8: 280.0, FP32: 35.0},
        device_names=(r"(NVIDIA )?A10G",),
        source="NVIDIA A10G datasheet (rates, memory); SM count and L2 as the driver reports them;"
        " clock derived from the fp32 rate.",
        **SM_86,
    ),
    GpuArch(
        name="l4",
        title="NVIDIA L4",
        sm_count=58,
        clock_mhz=2_040,
        l2_bytes=48 * _MIB,
        dram_bytes=24 * _GIB,
        dram_gbs=300.0,
        peak_tflops={FP16: 121.0, BF16: 121.0, FP8: 242.5, INT8: 242.5, FP32: 30.3},
        device_names=(r"NVIDIA L4",),
        source="NVIDIA L4 datasheet (2023), sparse matrix rates halved; NVIDIA Ada GPU Architecture"
        " whitepaper V2 (SMs, clock, L2)",
        **SM_89,
    ),
    GpuArch(
        name="l40s",
        title="NVIDIA L40S",
        sm_count=142,
        clock_mhz=2_520,
        l2_bytes=96 * _MIB,
        dram_bytes=48 * _GIB,
        dram_gbs=864.0,
        peak_tflops={FP16: 362.05, BF16: 362.05, FP8: 733.0, INT8: 733.0, FP32: 91.6},
        device_names=(r"NVIDIA L40S",),
        source="NVIDIA L40S datasheet (2023), dense columns; L2 of the same chip as L40, NVIDIA Ada"
        " GPU Architecture whitepaper V2; clock derived from the fp32 rate.",
        **SM_89,
    ),
    GpuArch(
        name="rtx3090",
        title="NVIDIA GeForce RTX 3090",
        sm_count=82,
        clock_mhz=1_695,
        l2_bytes=6 * _MIB,
        dram_bytes=24 * _GIB,
        dram_gbs=936.0,
        peak_tflops={FP16: 71.0, BF16: 71.0, INT8: 284.0, FP32: 35.6},
        device_names=(r"(NVIDIA )?GeForce RTX 3090",),
        source="NVIDIA Ampere GA102 GPU Architecture whitepaper V2, rates with fp32 accumulation",
        **SM_86,
    ),
    GpuArch(
        name="rtx4090",
        title="NVIDIA GeForce RTX 4090",
        sm_count=128,
        clock_mhz=2_520,
        l2_bytes=72 * _MIB,
        dram_bytes=24 * _GIB,
        dram_gbs=1_008.0,
        peak_tflops={FP16: 165.2, BF16: 165.2, FP8: 330.3, INT8: 660.6, FP32: 82.6},
        device_names=(r"(NVIDIA )?GeForce RTX 4090",),
        source="NVIDIA Ada GPU Architecture whitepaper V2, rates with fp32 accumulation",
        **SM_89,
    ),
    GpuArch(
        name="h100",
        title="NVIDIA H100 SXM",
        sm_count=132,
        clock_mhz=1_980,
        l2_bytes=50 * _MIB,
        dram_bytes=80 * _GIB,
        dram_gbs=3_352.0,
        peak_tflops={FP16: 989.4, BF16: 989.4, FP8: 1_978.9, INT8: 1_978.9, FP32: 66.9},
        device_names=(r"NVIDIA H100 80GB HBM3",),
        source="NVIDIA H100 Tensor Core GPU Architecture whitepaper V1.04 (matrix rates at 1830"
        " MHz); bandwidth derived: 5120 bit at 2619 MHz, on the datasheet 3.35 TB/s.",
        **SM_90,
    ),
    GpuArch(
        name="h100-pcie",
        title="NVIDIA H100 PCIe",
        sm_count=114,
        clock_mhz=1_755,
        l2_bytes=50 * _MIB,
        dram_bytes=80 * _GIB,
        dram_gbs=2_039.0,
        peak_tflops={FP16: 756.0, BF16: 756.0, FP8: 1_513.0, INT8: 1_513.0, FP32: 51.2},
        device_names=(r"NVIDIA H100 PCIe",),
        source="NVIDIA H100 Tensor Core GPU Architecture whitepaper V1.04 (matrix rates at 1620"
        " MHz)",
        **SM_90,
    ),
    GpuArch(
        name="h200",
        title="NVIDIA H200 SXM",
        sm_count=132,
        clock_mhz=1_980,
        l2_bytes=60 * _MIB,
        dram_bytes=141 * _GIB,
        dram_gbs=4_800.0,
        peak_tflops={FP16: 989.4, BF16: 989.4, FP8: 1_978.9, INT8: 1_978.9, FP32: 66.9},
        device_names=(r"NVIDIA H200",),
        source="NVIDIA H200 datasheet (2024); compute rates and clocks as H100 SXM (matrix rates at"
        " 1830 MHz); L2 as the driver reports it.",
        **SM_90,
    ),
    GpuArch(
        name="b200",
        title="NVIDIA B200",
        sm_count=148,
        clock_mhz=1_965,
        l2_bytes=126 * _MIB,
        dram_bytes=180 * _GIB,
        dram_gbs=7_672.0,
        peak_tflops={FP16: 2_250.0, BF16: 2_250.0, FP8: 4_500.0, INT8: 4_500.0, FP32: 75.0},
        device_names=(r"NVIDIA B200",),
        source="NVIDIA HGX B200 datasheet, eight-GPU rates divided, sparse ones halved (which puts"
        " the matrix clock at 1856 MHz); L2 from the Blackwell Tuning Guide; SMs and clock as the"
        " driver reports them; bandwidth derived: 7680 bit at 3996 MHz, on the datasheet 8 TB/s.",
        **SM_100,
    ),
    GpuArch(
        name="rtx5090",
        title="NVIDIA GeForce RTX 5090",
        sm_count=170,
        clock_mhz=2_407,
        l2_bytes=96 * _MIB,
        dram_bytes=32 * _GIB,
        dram_gbs=1_792.0,
        peak_tflops={FP16: 209.5, BF16: 209.5, FP8: 419.0, INT8: 838.0, FP32: 104.8},
        device_names=(r"NVIDIA GeForce RTX 5090",),
        source="NVIDIA RTX Blackwell GPU Architecture whitepaper V1.1, rates with fp32"
        " accumulation",
        **SM_120,
    ),
    GpuArch(
        name="mi300x",
        title="AMD Instinct MI300X",
        sm_count=304,
        clock_mhz=2_100,
        l2_bytes=32 * _MIB,
        dram_bytes=192 * _GIB,
        dram_gbs=5_300.0,
        peak_tflops={FP16: 1_307.4, BF16: 1_307.4, FP8: 2_614.9, INT8: 2_614.9, FP32: 163.4},
        device_names=(r"AMD Instinct MI300X( OAM| VF)?",),
        source="AMD Instinct MI300X data sheet (2023); AMD CDNA 3 white paper. L2 is the sum of 4"
        " MB on each of eight dies. VF is the whole card passed through to a virtual machine.",
        **GFX942,
    ),
)

GPUS: Mapping[str, GpuArch] = {row.name: row for row in _ROWS}
"""Every GPU that can be tuned for, by name. Adding one takes one row above."""


def lookup(name: str) -> GpuArch:
    """Return the row called `name`, in any letter case.

    Raises:
        UnknownChoiceError: no row has this name; the message offers near names and lists all.
    """
    row = GPUS.get(name.lower())
    if row is None:
        raise UnknownChoiceError("GPU", name, GPUS)
    return row


def match_device_name(name: str) -> GpuArch | None:
    """Return the row of the product that the driver calls `name`; None when no row is about it.

    Slices and variants (a MIG instance, "RTX 4090 Laptop GPU", "H200 NVL") are other hardware
    under a longer name, so patterns have to match in full.
    """
    for row in _ROWS:
        if any(re.fullmatch(pattern, name, re.IGNORECASE) for pattern in row.device_names):
            return row
    return None
