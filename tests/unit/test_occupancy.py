"""Blocks per SM against numbers computed by hand.

NVIDIA's by the rules of the CUDA occupancy calculator for compute capability 8.0 and 9.0: registers
in units of 256 per warp, warps in units of 4 (one per scheduler), shared memory in units of 128
bytes with 1 KiB per block for CUDA. AMD's by the CDNA 3 instruction set guide.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_cases import make_report

from autotune.arch import GPUS, lookup
from autotune.occupancy import occupancy

KIB = 1 << 10


@pytest.mark.parametrize(
    ("gpu", "registers", "warps", "shared_bytes", "blocks", "limiter"),
    [
        # 64 × 32 = 2048 registers a warp: 32 warps.
        ("a100", 64, 8, 0, 4, "registers"),
        # 255 × 32 rounds up to 8192: 8 warps.
        ("a100", 255, 4, 0, 2, "registers"),
        # 168 × 32 = 5376: 12.2 warps.
        ("a100", 168, 4, 0, 3, "registers"),
        # 40 × 32 = 1280: 51.2 warps, but 12.8 per scheduler, so 48 in all.
        ("a100", 40, 2, 0, 24, "registers"),
        # 200 × 32 = 6400: 2.56 per scheduler, so 8 warps.
        ("a100", 200, 1, 0, 8, "registers"),
        # One warp more than the scheduler's 2 × 4.
        ("a100", 200, 16, 0, 0, "registers"),
        ("a100", 16, 1, 0, 32, "block slots"),
        ("a100", 16, 16, 0, 4, "threads"),
        # 164 KiB / (48 + 1) KiB = 3.3.
        ("a100", 32, 4, 48 * KIB, 3, "shared memory"),
        ("a100", 32, 4, 163 * KIB, 1, "shared memory"),
        ("a100", 32, 4, 163 * KIB + 1, 0, "shared memory"),
        # 17,576 + 1,024 rounds up to 18,688: 8.98 blocks, where 18,600 would give 9.03.
        ("a100", 16, 4, 17_576, 8, "shared memory"),
        ("h100", 168, 12, 0, 1, "registers"),
        # 228 KiB / (113 + 1) KiB = 2.
        ("h100", 64, 4, 113 * KIB, 2, "shared memory"),
        ("h100", 64, 4, 227 * KIB, 1, "shared memory"),
        ("h100", 64, 4, 227 * KIB + 1, 0, "shared memory"),
        ("h100", 32, 8, 0, 8, "registers"),
        # sm_86 holds 48 warps in 16 blocks, sm_89 in 24.
        ("rtx3090", 16, 1, 0, 16, "block slots"),
        ("rtx4090", 16, 1, 0, 24, "block slots"),
        ("rtx4090", 16, 8, 0, 6, "threads"),
        # 512 registers a SIMD: 128 give 4 waves, 129 take 136 and give 3, of which there are four.
        ("mi300x", 128, 4, 0, 4, "registers"),
        ("mi300x", 129, 4, 0, 3, "registers"),
        ("mi300x", 512, 4, 0, 1, "registers"),
        ("mi300x", 512, 8, 0, 0, "registers"),
        ("mi300x", 8, 1, 0, 32, "registers"),
        ("mi300x", 64, 4, 32 * KIB, 2, "shared memory"),
        ("mi300x", 64, 4, 64 * KIB, 1, "shared memory"),
        ("mi300x", 64, 4, 64 * KIB + 1, 0, "shared memory"),
    ],
)
def test_by_hand(
    gpu: str, registers: int, warps: int, shared_bytes: int, blocks: int, limiter: str
) -> None:
    report = make_report(registers=registers, num_warps=warps, shared_bytes=shared_bytes)
    found = occupancy(report, lookup(gpu))
    assert (found.blocks, found.limiter) == (blocks, limiter)
    assert found.warps(report) == blocks * warps


@given(
    gpu=st.sampled_from(sorted(GPUS)),
    registers=st.integers(0, 512),
    warps=st.sampled_from([1, 2, 4, 8, 16]),
    shared_bytes=st.integers(0, 256 * KIB),
    more=st.integers(0, 64),
)
def test_asking_for_more_never_fits_more_blocks(
    gpu: str, registers: int, warps: int, shared_bytes: int, more: int
) -> None:
    arch = lookup(gpu)
    small = make_report(registers=registers, num_warps=warps, shared_bytes=shared_bytes)
    blocks = occupancy(small, arch).blocks
    assert 0 <= blocks * warps * arch.warp_size <= arch.max_threads_per_sm
    assert blocks * shared_bytes <= arch.shared_bytes_per_sm
    for larger in (
        make_report(registers=registers + more, num_warps=warps, shared_bytes=shared_bytes),
        make_report(registers=registers, num_warps=warps, shared_bytes=shared_bytes + more * KIB),
        make_report(registers=registers, num_warps=2 * warps, shared_bytes=shared_bytes),
    ):
        assert occupancy(larger, arch).blocks <= blocks
