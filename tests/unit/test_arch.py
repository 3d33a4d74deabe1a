"""The GPU table: figures that contradict each other, doubtful names, and lookups that miss."""

from __future__ import annotations

import dataclasses
import re

import pytest

from autotune.arch import BF16, FP8, FP16, FP32, GPUS, INT8, GpuArch, lookup, match_device_name
from autotune.errors import UnknownChoiceError

KIB = 1 << 10

# Floating-point operations of one SM in one clock (multiply and add count as two): vendor
# whitepapers. GeForce cards and A10G accumulate fp16 products in fp32 at half rate.
FP16_PER_CLOCK = {
    "a100": 2048,
    "a100-40gb": 2048,
    "a40": 1024,
    "a10g": 512,
    "l4": 1024,
    "l40s": 1024,
    "rtx-a6000": 1024,
    "rtx3090": 512,
    "rtx6000-ada": 1024,
    "rtx4090": 512,
    "h100": 4096,
    "h100-pcie": 4096,
    "h200": 4096,
    "b200": 8192,
    "rtx5080": 512,
    "rtx-pro-6000": 1024,
    "rtx5090": 512,
    "mi300x": 2048,
    "mi325x": 2048,
}
# Clock at which the vendor quotes matrix rates, where it is not the boost clock.
MATRIX_CLOCK_MHZ = {"h100": 1830, "h200": 1830, "h100-pcie": 1620, "b200": 1856}

# What the driver calls the cards, and the row each name belongs to.
DRIVER_NAMES = {
    "NVIDIA A100-SXM4-80GB": "a100",
    "A100-SXM4-80GB": "a100",
    "NVIDIA A100-SXM-80GB": "a100",
    "NVIDIA A100 80GB PCIe": "a100",
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA A100-PCIE-40GB": "a100-40gb",
    "NVIDIA A40": "a40",
    "NVIDIA A10G": "a10g",
    "NVIDIA L4": "l4",
    "NVIDIA L40S": "l40s",
    "NVIDIA RTX A6000": "rtx-a6000",
    "NVIDIA RTX 6000 Ada Generation": "rtx6000-ada",
    "NVIDIA GeForce RTX 3090": "rtx3090",
    "GeForce RTX 3090": "rtx3090",
    "NVIDIA GeForce RTX 4090": "rtx4090",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H100 PCIe": "h100-pcie",
    "NVIDIA H200": "h200",
    "NVIDIA B200": "b200",
    "NVIDIA GeForce RTX 5080": "rtx5080",
    "NVIDIA GeForce RTX 5090": "rtx5090",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "rtx-pro-6000",
    "AMD Instinct MI300X": "mi300x",
    "AMD Instinct MI300X OAM": "mi300x",
    "AMD Instinct MI300X VF": "mi300x",
    "AMD Instinct MI325X": "mi325x",
    "AMD Instinct Mi325X VF": "mi325x",
}
OTHER_HARDWARE = (
    "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
    "NVIDIA A10",
    "NVIDIA L40",
    "NVIDIA GeForce RTX 3090 Ti",
    "NVIDIA GeForce RTX 4090 D",
    "NVIDIA GeForce RTX 4090 Laptop GPU",
    "NVIDIA GeForce RTX 5090 Laptop GPU",
    "NVIDIA H100 NVL",
    "NVIDIA A40-48Q",
    "NVIDIA RTX A6000 Laptop GPU",
    "Quadro RTX 6000",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition",
    "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
    "NVIDIA H200 NVL",
    "NVIDIA GH200 480GB",
    "NVIDIA H20",
    "NVIDIA GB200",
    "Tesla V100-SXM2-16GB",
    "AMD Instinct MI300A",
    "AMD Instinct MI308X",
    "",
)

every_gpu = pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS.keys())


@every_gpu
def test_fp16_peak_follows_from_sm_count_and_clock(gpu: GpuArch) -> None:
    clock_mhz = MATRIX_CLOCK_MHZ.get(gpu.name, gpu.clock_mhz)
    tflops = gpu.sm_count * FP16_PER_CLOCK[gpu.name] * clock_mhz * 1e-6
    assert gpu.peak_tflops[FP16] == pytest.approx(tflops, rel=0.02)
    assert gpu.peak_tflops[BF16] == gpu.peak_tflops[FP16]


@every_gpu
def test_fp32_peak_follows_from_sm_count_and_clock(gpu: GpuArch) -> None:
    per_clock = 128 if gpu.target == "sm_80" else 256
    tflops = gpu.sm_count * per_clock * gpu.clock_mhz * 1e-6
    assert gpu.peak_tflops[FP32] == pytest.approx(tflops, rel=0.02)


@every_gpu
def test_8_bit_rates_are_dense_and_exist_where_the_hardware_has_them(gpu: GpuArch) -> None:
    # Twice fp16 where the matrix unit is not throttled; four times where fp32 accumulation is.
    ratio = gpu.peak_tflops[INT8] / gpu.peak_tflops[FP16]
    assert ratio == pytest.approx(4 if FP16_PER_CLOCK[gpu.name] == 512 else 2, rel=0.02)
    assert gpu.supports(FP8) == (gpu.target not in ("sm_80", "sm_86"))
    if gpu.supports(FP8):
        assert gpu.peak_tflops[FP8] == pytest.approx(2 * gpu.peak_tflops[FP16], rel=0.02)


@every_gpu
def test_ridge_and_sizes_are_plausible(gpu: GpuArch) -> None:
    ridge = gpu.peak_tflops[FP16] * 1e3 / gpu.dram_gbs  # FLOP per byte
    assert 70 < ridge < 450
    assert gpu.dram_bytes % (1 << 30) == 0
    whole_memory_ms = gpu.dram_bytes / gpu.dram_gbs * 1e-6
    assert 15 < whole_memory_ms < 100  # a unit mistaken by 1000 lands far outside
    assert 6 << 20 <= gpu.l2_bytes <= 128 << 20
    assert 16 <= gpu.sm_count <= 304
    assert gpu.source.strip()
    assert gpu.title.startswith(("NVIDIA ", "AMD "))


@every_gpu
def test_limits_of_one_sm(gpu: GpuArch) -> None:
    limits = {
        "sm_80": (163 * KIB, 2048, 32),
        "sm_86": (99 * KIB, 1536, 16),
        "sm_89": (99 * KIB, 1536, 24),
        "sm_90": (227 * KIB, 2048, 32),
        "sm_100": (227 * KIB, 2048, 32),
        "sm_120": (99 * KIB, 1536, 24),
        "gfx942": (64 * KIB, 2048, 32),
    }
    found = (gpu.shared_bytes_per_block, gpu.max_threads_per_sm, gpu.max_blocks_per_sm)
    assert found == limits[gpu.target]
    assert gpu.shared_bytes_per_block <= gpu.shared_bytes_per_sm
    # One block of the largest size fits with 64 registers a thread.
    assert gpu.registers_per_sm >= 1024 * 64
    assert gpu.max_registers_per_thread == (512 if gpu.vendor == "amd" else 255)


def test_keys_are_names_fit_for_folders_and_unique() -> None:
    assert len({row.title for row in GPUS.values()}) == len(GPUS)
    for key, row in GPUS.items():
        assert key == row.name
        assert re.fullmatch(r"[a-z0-9-]+", key)


def test_vendor_facts() -> None:
    assert (lookup("h200").vendor, lookup("h200").warp_size, lookup("h200").capability) == (
        "nvidia",
        32,
        90,
    )
    mi300x = lookup("mi300x")
    assert (mi300x.vendor, mi300x.warp_size, mi300x.capability) == ("amd", 64, 0)
    assert lookup("b200").capability == 100


@pytest.mark.parametrize(("device_name", "row"), DRIVER_NAMES.items())
def test_driver_name_matches_exactly_one_row(device_name: str, row: str) -> None:
    matching = [
        gpu.name
        for gpu in GPUS.values()
        if any(re.fullmatch(pattern, device_name, re.I) for pattern in gpu.device_names)
    ]
    assert matching == [row]
    for spelling in (device_name, device_name.upper()):
        found = match_device_name(spelling)
        assert found is GPUS[row]


def test_every_row_is_reached_by_some_driver_name() -> None:
    assert set(DRIVER_NAMES.values()) == set(GPUS)


@pytest.mark.parametrize("device_name", OTHER_HARDWARE)
def test_other_hardware_matches_no_row(device_name: str) -> None:
    assert match_device_name(device_name) is None


def test_lookup_ignores_case_only() -> None:
    assert lookup("H100-PCIe") is GPUS["h100-pcie"]


def test_unknown_gpu_offers_near_names_and_lists_all() -> None:
    with pytest.raises(UnknownChoiceError, match=r"Did you mean a100 or") as caught:
        lookup("a1000")
    assert caught.value.kind == "GPU"
    assert caught.value.exit_code == 2
    assert set(caught.value.choices) == set(GPUS)
    for name in GPUS:
        assert name in str(caught.value)


def test_rows_are_values() -> None:
    row = lookup("a100")
    assert hash(row) == hash(dataclasses.replace(row))
    assert dataclasses.replace(row, sm_count=54) != row
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.sm_count = 1  # type: ignore[misc]
