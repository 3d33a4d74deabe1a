"""What any constants inside their bounds must obey, and facts that are estimated or compiled."""

from __future__ import annotations

import dataclasses
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_cases import make_report, make_work

from autotune.arch import GPUS, GpuArch, lookup
from autotune.coefficients import BOUNDS, Coefficients
from autotune.cost_model import launch_terms_us, launch_us
from autotune.launch import NO_MATRIX, WARP_GROUP, WARP_LEVEL, Launch
from autotune.occupancy import occupancy
from autotune.tiles import Tiles, blocks_per_sm, estimate_attention, estimate_gemm, warp_spread

gpus = st.sampled_from(list(GPUS.values()))
rows = st.builds(
    Coefficients, **{name: st.floats(low, high) for name, (low, high) in BOUNDS.items()}
)
launches = st.builds(
    Launch,
    grid=st.integers(1, 100_000).map(float),
    loop_steps=st.floats(0, 1e4),
    longest_steps=st.floats(0, 1e4),
    flops=st.floats(0, 1e15),
    matrix_class=st.sampled_from([WARP_LEVEL, WARP_GROUP, NO_MATRIX]),
    peak_tflops=st.floats(10, 2000),
    dram_bytes=st.floats(1, 1e11),
    l2_bytes=st.floats(0, 1e12),
    step_bytes=st.floats(16, 1e6),
    shared_step_bytes=st.floats(0, 1e6),
    instructions=st.floats(0, 1e4),
    warps=st.sampled_from([1.0, 2.0, 4.0, 8.0]),
    blocks=st.integers(1, 32).map(float),
    depth=st.integers(0, 5).map(float),
    spilled=st.floats(0, 500),
    atomic_bytes=st.floats(0, 1e9),
    unpack=st.floats(0, 1e4),
    rows=st.sampled_from([16.0, 64.0, 256.0]),
    cols=st.sampled_from([16.0, 64.0, 256.0]),
    tile_depth=st.sampled_from([32.0, 64.0, 128.0]),
)
COSTS = (
    "loop_steps", "longest_steps", "flops", "dram_bytes", "l2_bytes", "shared_step_bytes",
    "instructions", "spilled", "atomic_bytes", "unpack",
)  # fmt: skip


@settings(max_examples=300)
@given(st.sampled_from(COSTS), gpus, launches, rows, st.floats(1, 100))
def test_more_of_anything_is_never_faster(
    cost: str, arch: GpuArch, launch: Launch, row: Coefficients, factor: float
) -> None:
    more = dataclasses.replace(launch, **{cost: getattr(launch, cost) * factor})
    assert launch_us(more, arch, row) >= launch_us(launch, arch, row) * (1 - 1e-9)


@given(gpus, launches, rows)
def test_a_tile_more_in_flight_is_never_slower(
    arch: GpuArch, launch: Launch, row: Coefficients
) -> None:
    deeper = dataclasses.replace(launch, depth=launch.depth + 1)
    assert launch_us(deeper, arch, row) <= launch_us(launch, arch, row) * (1 + 1e-9)


@given(gpus, launches, rows)
def test_no_constants_beat_the_peaks(arch: GpuArch, launch: Launch, row: Coefficients) -> None:
    time = launch_us(launch, arch, row)
    assert time >= launch.dram_bytes / (arch.dram_gbs * 1e3)
    assert time >= launch.flops / (launch.peak_tflops * 1e6)
    assert time >= max(launch_terms_us(launch, arch, row)) + row.launch_us


@given(gpus, st.lists(launches, min_size=1, max_size=5), rows)
def test_arrays_and_numbers_agree(arch: GpuArch, many: list[Launch], row: Coefficients) -> None:
    columns = {
        field.name: np.array([getattr(one, field.name) for one in many], dtype=np.float64)
        for field in fields(Launch)
    }
    together = launch_us(Launch(**columns), arch, row)
    alone = [launch_us(one, arch, row) for one in many]
    assert together == pytest.approx(alone, rel=1e-9)


@pytest.mark.parametrize("gpu", ["a100", "rtx4090", "h100", "mi300x"])
@given(st.integers(16, 255), st.integers(0, 64 * 1024), st.sampled_from([1, 2, 4, 8, 16]))
def test_estimated_occupancy_is_the_real_one(
    gpu: str, registers: int, shared: int, warps: int
) -> None:
    arch = lookup(gpu)
    report = make_report(registers=registers, shared_bytes=shared, num_warps=warps)
    columns = (np.array([float(value)]) for value in (registers, shared, warps))
    assert blocks_per_sm(*columns, arch)[0] == occupancy(report, arch).blocks


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def test_gemm_estimates_are_what_was_compiled() -> None:
    """Facts that Triton 3.7.1 gave for `fused_mlp` down, sm_80 and sm_90: instructions, shared."""
    shape = {"rows": (128, 16), "cols": (256, 64), "depth": (64, 64)}
    tiles = Tiles(
        **{name: column(*values) for name, values in shape.items()},
        warps=column(8, 4),
        stages=column(4, 5),
    )
    ampere = estimate_gemm(tiles, lookup("a100"), 2.0)
    assert ampere.instructions == pytest.approx([226, 62], rel=0.05)
    assert list(ampere.shared_bytes) == [147_456, 40_960]
    assert ampere.registers[0] == pytest.approx(249, rel=0.2)
    hopper = estimate_gemm(tiles, lookup("h100"), 2.0)
    assert list(hopper.matrix_class) == [WARP_GROUP, WARP_LEVEL]
    assert list(hopper.shared_bytes) == [196_608, 40_960]
    assert hopper.instructions == pytest.approx([88, 64], rel=0.25)


def test_attention_estimates_are_what_was_compiled() -> None:
    """`paged_attention_prefill` on sm_90: 64 rows, 64 keys, 4 warps: 543 instructions."""
    tiles = Tiles(column(64), column(64), column(64), column(4), column(3))
    estimate = estimate_attention(tiles, 128.0, column(1), lookup("h100"), 5.0)
    assert estimate.instructions == pytest.approx([543], rel=0.15)
    assert list(estimate.matrix_class) == [WARP_GROUP]


def test_warps_are_spread_over_a_product_as_triton_does() -> None:
    down, across = warp_spread(column(128, 16, 64), column(128, 128, 64), column(8, 4, 4), 8)
    assert list(down * across) == [8, 4, 4]
    assert list(down) == [4, 1, 2]


def test_reports_become_launches() -> None:
    arch = lookup("a100")
    launch = Launch.from_report(make_work(tile=(128, 64, 32)), make_report(), arch)
    assert (launch.rows, launch.cols, launch.tile_depth) == (128.0, 64.0, 32.0)
    assert launch.instructions == 156
    assert launch.depth == 2.0
    assert launch.peak_tflops == arch.peak_tflops["bf16"]
    plain = make_report(loop={"load_global": 8}, mma=None)
    assert Launch.from_report(make_work(), plain, arch).depth == 0.0
    assert Launch.from_report(make_work(), plain, arch).matrix_class == NO_MATRIX
    # Without asynchronous copies, AMD's next tile waits in registers.
    assert Launch.from_report(make_work(), plain, lookup("mi300x")).depth == 1.0
