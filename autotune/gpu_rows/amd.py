"""AMD's accelerators."""

from __future__ import annotations

from autotune.gpu_arch import BF16, FP8, FP16, FP32, GIB, INT8, MIB, GpuArch
from autotune.sm import GFX942

ROWS = (
    GpuArch(
        name="mi300x",
        title="AMD Instinct MI300X",
        sm_count=304,
        clock_mhz=2_100,
        l2_bytes=32 * MIB,
        dram_bytes=192 * GIB,
        dram_gbs=5_300.0,
        peak_tflops={FP16: 1_307.4, BF16: 1_307.4, FP8: 2_614.9, INT8: 2_614.9, FP32: 163.4},
        device_names=(r"AMD Instinct MI300X( OAM| VF)?",),
        source="AMD Instinct MI300X data sheet (2023); AMD CDNA 3 white paper. L2 is the sum of 4"
        " MB on each of eight dies. VF is the whole card passed through to a virtual machine.",
        **GFX942,
    ),
    GpuArch(
        name="mi325x",
        title="AMD Instinct MI325X",
        sm_count=304,
        clock_mhz=2_100,
        l2_bytes=32 * MIB,
        dram_bytes=256 * GIB,
        dram_gbs=6_000.0,
        peak_tflops={FP16: 1_307.4, BF16: 1_307.4, FP8: 2_614.9, INT8: 2_614.9, FP32: 163.4},
        device_names=(r"AMD Instinct MI325X( OAM| VF)?",),
        source="AMD Instinct MI325X data sheet (2024); compute dies, clock and L2 as MI300X.",
        **GFX942,
    ),
)
