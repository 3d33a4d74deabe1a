"""Predicted time of a kernel at a point, from the compiler's facts. Never a measurement.

A roofline over waves: each resource gives a lower bound, a norm joins them. After Roller (OSDI
2022), tritonBLAS/Origami (2025) and the Hong-Kim latency model (ISCA 2009): DRAM, L2, matrix units,
instruction issue and shared memory bound the throughput of a full SM; the latency of one program's
loop bounds grids that are too small to fill it. Its constants are in `coefficients`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.arch import GpuArch
from autotune.coefficients import Coefficients, CoefficientTable, kind_of, shipped
from autotune.kernels.spec import Work
from autotune.launch import NO_MATRIX, WARP_GROUP, Launch, Numbers
from autotune.records import CompileReport

MODEL_VERSION = 2
"""Part of every prediction's identity: raise it when a prediction can change."""

TERMS = ("dram", "l2", "matrix", "issue", "shared", "latency")

_SCALAR_EFFICIENCY = 0.6
"""Share of the fp32 rate that sums outside of the matrix unit reach."""
_SCHEDULERS = 4
_SHARED_BYTES_PER_CLOCK = 128.0
_WARPS_TO_ISSUE = 8.0
"""Resident warps that keep four schedulers issuing."""
_TINY_US = 1e-12


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
    """Predictions for one GPU, by the shipped table of constants or another one."""

    def __init__(self, arch: GpuArch, table: CoefficientTable | None = None) -> None:
        self.arch = arch
        self.table = table or shipped()
        self._rows: dict[str, Coefficients] = {}

    def predict(self, works: Sequence[Work], reports: Sequence[CompileReport]) -> Prediction:
        """Time of launching all entry points in order; works and reports go in pairs."""
        assert [w.entry for w in works] == [r.entry for r in reports], "works and reports differ"
        launches = [
            Launch.from_report(work, report, self.arch)
            for work, report in zip(works, reports, strict=True)
        ]
        parts = [self._entry(w.entry, launch) for w, launch in zip(works, launches, strict=True)]
        if len(parts) == 1:
            return parts[0]
        longest = max(parts, key=lambda part: part.time_us)
        return dataclasses.replace(longest, time_us=sum(part.time_us for part in parts))

    def row(self, entry: str) -> Coefficients:
        """Constants for an entry point."""
        kind = kind_of(entry)
        if kind not in self._rows:
            self._rows[kind] = self.table.row(kind, self.arch)
        return self._rows[kind]

    def error_factor(self, entry: str) -> float:
        """Factor within which the true time of an entry point is expected."""
        return self.table.error_factor(kind_of(entry), self.arch)

    def floor_us(self, flops: float, min_bytes: float, dtype: str) -> float:
        """Least possible time: bytes at peak bandwidth or operations at peak rate."""
        rate = self.arch.peak_tflops.get(dtype, self.arch.peak_tflops["fp32"])
        return max(min_bytes / (self.arch.dram_gbs * 1e3), flops / (rate * 1e6))

    def _entry(self, entry: str, launch: Launch) -> Prediction:
        row = self.row(entry)
        terms = launch_terms_us(launch, self.arch, row)
        return Prediction(
            time_us=float(_join(terms, launch, self.arch, row)),
            terms_us=tuple(map(float, terms)),
            blocks_per_sm=int(launch.blocks),
            waves=launch.grid / (self.arch.sm_count * launch.blocks),
        )


def launch_us(launch: Launch, arch: GpuArch, c: Coefficients) -> Numbers:
    """Time of one launch; numbers in, a number out, arrays in, an array out."""
    return _join(launch_terms_us(launch, arch, c), launch, arch, c)


def launch_terms_us(launch: Launch, arch: GpuArch, c: Coefficients) -> tuple[Numbers, ...]:
    """Lower bounds in the order of `TERMS`, each at the share of its peak that `c` says."""
    per_us, sms = float(arch.clock_mhz), arch.sm_count  # clocks per microsecond
    # Programs that the busiest SM runs in all, and how many rounds of residents that takes.
    per_sm = _ceil(launch.grid / sms)
    rounds = _ceil(launch.grid / (sms * launch.blocks))
    warps = _least(per_sm, launch.blocks) * launch.warps
    steps = per_sm * launch.loop_steps
    instructions = launch.instructions + c.unpack_cost * launch.unpack
    share = _shape_share(launch, c)

    dram = launch.dram_bytes / (arch.dram_gbs * 1e3 * _least(0.95, c.dram_efficiency * share))
    l2 = launch.l2_bytes / (_least(launch.grid, sms) * c.l2_bytes_per_clock * share * per_us)
    fed = _least(0.95, _efficiency(launch, c) * share * warps / (warps + c.feeding_warps))
    matrix = per_sm * (launch.flops / launch.grid) * sms / (launch.peak_tflops * 1e6 * fed)
    issue_rate = _SCHEDULERS * c.issue_efficiency * _least(1.0, warps / _WARPS_TO_ISSUE)
    issue = steps * launch.warps * instructions / (issue_rate * share * per_us)
    shared_rate = _SHARED_BYTES_PER_CLOCK * c.shared_efficiency
    shared = steps * launch.shared_step_bytes / (shared_rate * share * per_us)

    chain = instructions * c.clocks_per_instruction / per_us + c.sync_us
    wait = c.dram_latency_us / _most(1.0, launch.depth)
    overlapped = _most(chain, wait) + 0.25 * _least(chain, wait)
    step = _where(launch.depth > 0, overlapped, chain + wait)
    latency = rounds * launch.longest_steps * step / share
    return dram, l2, matrix, issue, shared, latency


def _join(terms: tuple[Numbers, ...], launch: Launch, arch: GpuArch, c: Coefficients) -> Numbers:
    longest: Numbers = _TINY_US
    for term in terms:
        longest = _most(longest, term)
    # Scaled by the longest: its powers would overflow for hour-long predictions otherwise.
    total: Numbers = 0.0
    for term in terms:
        total = total + (term / longest) ** c.sharpness
    body = longest * total ** (1.0 / c.sharpness) * (1.0 + c.spill_penalty * launch.spilled)
    rounds = _ceil(launch.grid / (arch.sm_count * launch.blocks))
    atomics = launch.atomic_bytes / (arch.sm_count * c.atomic_bytes_per_clock * arch.clock_mhz)
    return (1.0 + launch.fills) * c.launch_us + c.prologue_us * rounds**0.7 + body + atomics


def _efficiency(launch: Launch, c: Coefficients) -> Numbers:
    """Share of the peak that the launch's matrix instructions reach."""
    others = _where(launch.matrix_class == NO_MATRIX, _SCALAR_EFFICIENCY, c.matrix_efficiency)
    return _where(launch.matrix_class == WARP_GROUP, c.group_efficiency, others)


def _shape_share(launch: Launch, c: Coefficients) -> Numbers:
    """What a tile's shape and warps do to the achieved share of all bounds."""
    return _exp(
        c.rows_exponent * _log2(launch.rows / 64)
        + c.cols_exponent * _log2(launch.cols / 64)
        + c.depth_exponent * _log2(launch.tile_depth / 64)
        + c.warps_exponent * _log2(launch.warps / 4)
    )


# Searches predict a hundred thousand times, one at a time, and numpy takes a microsecond for each
# operation on a lone number: those below take numpy's way for arrays only.


def _most(a: Numbers, b: Numbers) -> Numbers:
    return np.maximum(a, b) if _any_array(a, b) else max(a, b)


def _least(a: Numbers, b: Numbers) -> Numbers:
    return np.minimum(a, b) if _any_array(a, b) else min(a, b)


def _ceil(a: Numbers) -> Numbers:
    return np.ceil(a) if isinstance(a, np.ndarray) else float(math.ceil(a))


def _exp(a: Numbers) -> Numbers:
    return np.exp(a) if isinstance(a, np.ndarray) else math.exp(a)


def _log2(a: Numbers) -> Numbers:
    return np.log2(a) if isinstance(a, np.ndarray) else math.log2(a)


def _where(condition: Any, a: Numbers, b: Numbers) -> Numbers:
    if isinstance(condition, np.ndarray):
        return np.where(condition, a, b)
    return a if condition else b


def _any_array(a: Numbers, b: Numbers) -> bool:
    return isinstance(a, np.ndarray) or isinstance(b, np.ndarray)
