"""Predicted time of a compiled kernel at a point, from the compiler's facts. Never a measurement.

A roofline over waves: each resource gives a lower bound, the largest dominates. After Roller (OSDI
2022), tritonBLAS/Origami (2025) and the Hong-Kim latency model (ISCA 2009): DRAM, L2, matrix units,
instruction issue and shared memory bound the throughput of a full SM; the latency of one program's
loop bounds grids that are too small to fill it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.arch import GpuArch
from autotune.kernels.spec import Work
from autotune.occupancy import occupancy
from autotune.records import CompileReport

MODEL_VERSION = 1
"""Part of every prediction's identity: raise it when a prediction can change."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The model's constants; none is fitted to a measurement of ours yet."""

    dram_efficiency: float = 0.90
    """Reachable share of peak bandwidth (copies reach 0.88 to 0.92 on A100, H100 and H200)."""
    l2_bytes_per_clock: float = 40.0
    """Per SM; the port is 64 wide (Jia et al. 2018, Luo et al. 2024 measure 60 to 70 % of it)."""
    dram_latency_us: float = 0.65
    """Loaded latency of one access (A100 and H100 microbenchmarks: 0.5 to 0.8)."""
    launch_us: float = 2.0
    """Start and drain of one kernel inside a CUDA graph."""
    prologue_us: float = 0.8
    """Index loads, first tile and epilogue of one program, beyond its loop."""
    clocks_per_instruction: float = 2.2
    """Of one warp running alone: dependent issue, averaged over a loop body."""
    issue_efficiency: float = 0.75
    """Of one instruction per scheduler and clock, four schedulers."""
    shared_clocks: float = 3.0
    """Clocks of the shared-memory pipe that one warp's access takes (4 for 16 B per lane)."""
    sharpness: float = 6.0
    """Exponent of the norm that joins the bounds: infinite is a pure maximum."""
    error_factor: float = 2.0
    """Stated uncertainty: the true time lies within time × or ÷ this, until fitted."""


MATRIX_EFFICIENCY = {
    ("mma", 80): 0.85,
    ("mma", 86): 0.85,
    ("mma", 89): 0.85,
    ("mma", 90): 0.60,  # warp-level instructions reach 60 % of Hopper's rate (Luo et al. 2024)
    ("mma", 100): 0.30,
    ("mma", 120): 0.85,
    ("wgmma", 90): 0.85,
    ("tcgen05", 100): 0.80,
    ("mfma", 0): 0.65,
}
"""Share of the peak matrix rate that an instruction class reaches, by compute capability."""


TERMS = ("dram", "l2", "matrix", "issue", "shared", "latency")


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted time of one launch sequence, and what bounds its longest entry point."""

    time_us: float
    terms_us: tuple[float, ...]
    """Lower bounds of the longest entry point, in the order of `TERMS`."""
    blocks_per_sm: int
    waves: float
    """Programs over those that run at once."""

    @property
    def bound(self) -> str:
        """Name of the largest term."""
        return TERMS[self.terms_us.index(max(self.terms_us))]


class CostModel:
    """Predictions for one GPU."""

    def __init__(self, arch: GpuArch, coefficients: Coefficients | None = None) -> None:
        self.arch = arch
        self.coefficients = coefficients or Coefficients()

    def predict(self, works: Sequence[Work], reports: Sequence[CompileReport]) -> Prediction:
        """Time of launching all entry points in order; works and reports go in pairs."""
        assert [w.entry for w in works] == [r.entry for r in reports], "works and reports differ"
        parts = [self._entry(work, report) for work, report in zip(works, reports, strict=True)]
        if len(parts) == 1:
            return parts[0]
        longest = max(parts, key=lambda part: part.time_us)
        return dataclasses.replace(longest, time_us=sum(part.time_us for part in parts))

    def floor_us(self, flops: float, min_bytes: float, dtype: str) -> float:
        """Least possible time: bytes at peak bandwidth or operations at peak rate."""
        rate = self.arch.peak_tflops.get(dtype, self.arch.peak_tflops["fp32"])
        return max(min_bytes / (self.arch.dram_gbs * 1e3), flops / (rate * 1e6))

    def _entry(self, work: Work, report: CompileReport) -> Prediction:
        # Searches call this a hundred thousand times: locals, and no work that is thrown away.
        c, arch = self.coefficients, self.arch
        fit = occupancy(report, arch).blocks
        blocks = max(1, fit)
        slots = arch.sm_count * blocks
        busy_sms = min(work.grid, arch.sm_count)
        # Programs that the busiest SM runs in all, and how many rounds of residents that takes.
        per_sm = math.ceil(work.grid / arch.sm_count)
        rounds = math.ceil(work.grid / slots)
        warps_per_sm = min(per_sm, blocks) * report.num_warps
        clock_us = 1.0 / arch.clock_mhz
        warp_steps = per_sm * work.loop_steps * report.num_warps
        loop = report.loop
        shared_accesses = loop.get("load_shared", 0) + loop.get("store_shared", 0)
        issue_rate = min(4.0, warps_per_sm / 2.0) * c.issue_efficiency

        dram = work.dram_bytes / (arch.dram_gbs * 1e3 * c.dram_efficiency)
        if work.grid > slots:
            # Bandwidth is shared by what is resident: a ragged last round leaves part of it idle.
            dram *= 1.0 + 0.25 * (rounds * slots / work.grid - 1.0)
        terms = (
            dram,
            work.l2_bytes / (busy_sms * c.l2_bytes_per_clock) * clock_us,
            self._matrix_us(work, report, per_sm, warps_per_sm),
            warp_steps * sum(loop.values()) / issue_rate * clock_us,
            warp_steps * shared_accesses * c.shared_clocks * clock_us,
            rounds * work.longest_steps * self._step_us(work, report),
        )
        longest = max(terms)
        p = c.sharpness
        # Scaled by the longest: its powers would overflow for hour-long predictions otherwise.
        body = longest * sum((term / longest) ** p for term in terms) ** (1.0 / p)
        return Prediction(
            time_us=c.launch_us + c.prologue_us * rounds**0.5 + body,
            terms_us=terms,
            blocks_per_sm=fit,
            waves=work.grid / slots,
        )

    def _matrix_us(
        self, work: Work, report: CompileReport, per_sm: int, warps_per_sm: int
    ) -> float:
        if not work.flops:
            return 0.0
        arch = self.arch
        if report.mma is None or work.matrix_dtype is None:
            rate, efficiency = arch.peak_tflops["fp32"], 0.6
        else:
            rate = arch.peak_tflops.get(work.matrix_dtype, arch.peak_tflops["fp32"])
            efficiency = MATRIX_EFFICIENCY.get((report.mma, arch.capability), 0.6)
        # Four matrix units per SM, each fed by warps of its own.
        efficiency *= min(1.0, warps_per_sm / 4.0)
        per_program = work.flops / work.grid
        return per_sm * per_program * arch.sm_count / (rate * 1e6 * efficiency)

    def _step_us(self, work: Work, report: CompileReport) -> float:
        """Time of one loop iteration of a program that has the SM to itself."""
        c = self.coefficients
        instructions = sum(report.loop.values())
        compute = instructions * c.clocks_per_instruction / self.arch.clock_mhz
        if not report.loop.get("async_copy") and report.mma != "tcgen05":
            return compute + c.dram_latency_us  # plain loads: every iteration waits for its own
        # Pipelined: shared memory tells how many tiles are in flight.
        depth = max(1.0, min(report.num_stages - 1.0, report.shared_bytes / work.step_bytes))
        return max(compute, c.dram_latency_us / depth)
