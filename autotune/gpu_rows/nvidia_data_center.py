"""NVIDIA's cards for servers."""

from __future__ import annotations

from autotune.gpu_arch import BF16, FP8, FP16, FP32, GIB, INT8, MIB, GpuArch
from autotune.sm import SM_80, SM_86, SM_89, SM_90, SM_100

ROWS = (
    GpuArch(
        name="a100",
        title="NVIDIA A100 80 GB SXM",
        sm_count=108,
        clock_mhz=1_410,
        l2_bytes=40 * MIB,
        dram_bytes=80 * GIB,
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
        l2_bytes=40 * MIB,
        dram_bytes=40 * GIB,
        dram_gbs=1_555.0,
        peak_tflops={FP16: 312.0, BF16: 312.0, INT8: 624.0, FP32: 19.5},
        device_names=(r"(NVIDIA )?A100-(SXM4?|PCIe)-40GB",),
        source="NVIDIA A100 Tensor Core GPU Architecture whitepaper V1.0 (2020)",
        **SM_80,
    ),
    GpuArch(
        name="a40",
        title="NVIDIA A40",
        sm_count=84,
        clock_mhz=1_740,
        l2_bytes=6 * MIB,
        dram_bytes=48 * GIB,
        dram_gbs=696.0,
        peak_tflops={FP16: 149.7, BF16: 149.7, INT8: 299.3, FP32: 37.4},
        device_names=(r"NVIDIA A40",),
        source="NVIDIA A40 datasheet (rates, memory); SMs and L2 of the whole chip, NVIDIA Ampere"
        " GA102 GPU Architecture whitepaper V2; clock derived from the fp32 rate.",
        **SM_86,
    ),
    GpuArch(
        name="a10g",
        title="NVIDIA A10G",
        sm_count=80,
        clock_mhz=1_710,
        l2_bytes=6 * MIB,
        dram_bytes=24 * GIB,
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
        l2_bytes=48 * MIB,
        dram_bytes=24 * GIB,
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
        l2_bytes=96 * MIB,
        dram_bytes=48 * GIB,
        dram_gbs=864.0,
        peak_tflops={FP16: 362.05, BF16: 362.05, FP8: 733.0, INT8: 733.0, FP32: 91.6},
        device_names=(r"NVIDIA L40S",),
        source="NVIDIA L40S datasheet (2023), dense columns; L2 of the same chip as L40, NVIDIA Ada"
        " GPU Architecture whitepaper V2; clock derived from the fp32 rate.",
        **SM_89,
    ),
    GpuArch(
        name="h100",
        title="NVIDIA H100 SXM",
        sm_count=132,
        clock_mhz=1_980,
        l2_bytes=50 * MIB,
        dram_bytes=80 * GIB,
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
        l2_bytes=50 * MIB,
        dram_bytes=80 * GIB,
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
        l2_bytes=60 * MIB,
        dram_bytes=141 * GIB,
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
        l2_bytes=126 * MIB,
        dram_bytes=180 * GIB,
        dram_gbs=7_672.0,
        peak_tflops={FP16: 2_250.0, BF16: 2_250.0, FP8: 4_500.0, INT8: 4_500.0, FP32: 75.0},
        device_names=(r"NVIDIA B200",),
        source="NVIDIA HGX B200 datasheet, eight-GPU rates divided, sparse ones halved (which puts"
        " the matrix clock at 1856 MHz); L2 from the Blackwell Tuning Guide; SMs and clock as the"
        " driver reports them; bandwidth derived: 7680 bit at 3996 MHz, on the datasheet 8 TB/s.",
        **SM_100,
    ),
)
