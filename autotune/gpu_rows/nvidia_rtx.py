"""NVIDIA's cards for workstations and at home."""

from __future__ import annotations

from autotune.gpu_arch import BF16, FP8, FP16, FP32, GIB, INT8, MIB, GpuArch
from autotune.sm import SM_86, SM_89, SM_120

ROWS = (
    GpuArch(
        name="rtx-a6000",
        title="NVIDIA RTX A6000",
        sm_count=84,
        clock_mhz=1_800,
        l2_bytes=6 * MIB,
        dram_bytes=48 * GIB,
        dram_gbs=768.0,
        peak_tflops={FP16: 154.8, BF16: 154.8, INT8: 309.7, FP32: 38.7},
        device_names=(r"(NVIDIA )?RTX A6000",),
        source="NVIDIA Ampere GA102 GPU Architecture whitepaper V2. Unlike GeForce cards it"
        " accumulates in fp32 at full rate.",
        **SM_86,
    ),
    GpuArch(
        name="rtx3090",
        title="NVIDIA GeForce RTX 3090",
        sm_count=82,
        clock_mhz=1_695,
        l2_bytes=6 * MIB,
        dram_bytes=24 * GIB,
        dram_gbs=936.0,
        peak_tflops={FP16: 71.0, BF16: 71.0, INT8: 284.0, FP32: 35.6},
        device_names=(r"(NVIDIA )?GeForce RTX 3090",),
        source="NVIDIA Ampere GA102 GPU Architecture whitepaper V2, rates with fp32 accumulation",
        **SM_86,
    ),
    GpuArch(
        name="rtx6000-ada",
        title="NVIDIA RTX 6000 Ada Generation",
        sm_count=142,
        clock_mhz=2_505,
        l2_bytes=96 * MIB,
        dram_bytes=48 * GIB,
        dram_gbs=960.0,
        peak_tflops={FP16: 364.2, BF16: 364.2, FP8: 728.5, INT8: 728.5, FP32: 91.1},
        device_names=(r"NVIDIA RTX 6000 Ada Generation",),
        source="NVIDIA RTX 6000 Ada Generation datasheet (SMs, memory, fp32 rate, 1457 TFLOPS of"
        " sparse fp8, from which the other matrix rates follow); L2 of the same chip as L40S; clock"
        " derived from the fp32 rate.",
        **SM_89,
    ),
    GpuArch(
        name="rtx4090",
        title="NVIDIA GeForce RTX 4090",
        sm_count=128,
        clock_mhz=2_520,
        l2_bytes=72 * MIB,
        dram_bytes=24 * GIB,
        dram_gbs=1_008.0,
        peak_tflops={FP16: 165.2, BF16: 165.2, FP8: 330.3, INT8: 660.6, FP32: 82.6},
        device_names=(r"(NVIDIA )?GeForce RTX 4090",),
        source="NVIDIA Ada GPU Architecture whitepaper V2, rates with fp32 accumulation",
        **SM_89,
    ),
    GpuArch(
        name="rtx5080",
        title="NVIDIA GeForce RTX 5080",
        sm_count=84,
        clock_mhz=2_617,
        l2_bytes=64 * MIB,
        dram_bytes=16 * GIB,
        dram_gbs=960.0,
        peak_tflops={FP16: 112.6, BF16: 112.6, FP8: 225.1, INT8: 450.2, FP32: 56.3},
        device_names=(r"NVIDIA GeForce RTX 5080",),
        source="NVIDIA RTX Blackwell GPU Architecture whitepaper V1.1, rates with fp32"
        " accumulation",
        **SM_120,
    ),
    GpuArch(
        name="rtx-pro-6000",
        title="NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        sm_count=188,
        clock_mhz=2_617,
        l2_bytes=128 * MIB,
        dram_bytes=96 * GIB,
        dram_gbs=1_792.0,
        peak_tflops={FP16: 503.8, BF16: 503.8, FP8: 1_007.6, INT8: 1_007.6, FP32: 126.0},
        device_names=(r"NVIDIA RTX PRO 6000 Blackwell Workstation Edition",),
        source="NVIDIA RTX PRO 6000 Blackwell Workstation Edition datasheet (SMs, memory, 125"
        " TFLOPS of fp32, 4000 TOPS of sparse fp4, from which clock and matrix rates follow: fp32"
        " is accumulated at full rate); L2 of the whole chip. The Server and Max-Q editions run at"
        " other clocks.",
        **SM_120,
    ),
    GpuArch(
        name="rtx5090",
        title="NVIDIA GeForce RTX 5090",
        sm_count=170,
        clock_mhz=2_407,
        l2_bytes=96 * MIB,
        dram_bytes=32 * GIB,
        dram_gbs=1_792.0,
        peak_tflops={FP16: 209.5, BF16: 209.5, FP8: 419.0, INT8: 838.0, FP32: 104.8},
        device_names=(r"NVIDIA GeForce RTX 5090",),
        source="NVIDIA RTX Blackwell GPU Architecture whitepaper V1.1, rates with fp32"
        " accumulation",
        **SM_120,
    ),
)
