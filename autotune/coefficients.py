"""Constants of the cost model, by kind of kernel and architecture class, from a fitted table.

The table ships beside this module (`cost_coefficients.json`); `autotune replay --winners FOLDER
--fit FILE` makes one. A file that is damaged, foreign or out of bounds is refused.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from autotune.arch import GpuArch
from autotune.errors import CorruptResultError

SCHEMA = 1
KINDS = ("attention", "dequant", "gemm", "gemv", "gemv_rows", "other")
"""Kinds of loops: attention over pages; products with weights unpacked on the way; plain products;
matrix-vector products along K; the same with K split over programs; all else."""
CLASSES = ("ampere", "ada", "hopper", "blackwell", "cdna3")

_CLASS_OF_TARGET = {
    "sm_80": ("ampere",),
    "sm_86": ("ampere",),
    "sm_89": ("ada",),
    "sm_90": ("hopper",),
    "sm_100": ("blackwell", "hopper"),
    # No warp groups and a small shared memory: Ada's nearest relative among what was fitted.
    "sm_120": ("ada",),
    "gfx942": ("cdna3",),
}
_KIND_OF_ENTRY = {
    "paged_attention_decode_merge": "other",
    "paged_attention": "attention",
    "fused_mlp_down_reduce": "other",
    "fused_mlp": "gemm",
    "dequant_gemm_reduce": "other",
    "dequant_gemv": "gemv",
    "dequant_gemm": "dequant",
}
"""By the longest prefix of an entry point's name."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """What an architecture achieves of its peaks on one kind of kernel, and what steps cost."""

    dram_efficiency: float = 0.85
    """Reachable share of peak bandwidth (copies reach 0.88 to 0.92 on A100, H100 and H200)."""
    l2_bytes_per_clock: float = 40.0
    """Per SM; the port is 64 wide (Jia et al. 2018, Luo et al. 2024 measure 60 to 70 % of it)."""
    dram_latency_us: float = 0.7
    """Loaded latency of one access (A100 and H100 microbenchmarks: 0.5 to 0.8)."""
    launch_us: float = 3.0
    """Start and drain of one kernel inside a CUDA graph."""
    prologue_us: float = 0.8
    """Index loads, first tile and epilogue of one program, beyond its loop."""
    clocks_per_instruction: float = 2.0
    """Of one warp running alone: dependent issue, averaged over a loop body."""
    issue_efficiency: float = 0.7
    """Of one instruction per scheduler and clock, four schedulers."""
    shared_efficiency: float = 0.6
    """Of 128 bytes per SM and clock through shared memory."""
    matrix_efficiency: float = 0.75
    """Of the peak matrix rate, by instructions of one warp (mma, mfma)."""
    group_efficiency: float = 0.7
    """The same by instructions of a warp group (wgmma, tcgen05)."""
    sync_us: float = 0.05
    """Barriers and waits of one iteration."""
    spill_penalty: float = 0.02
    """Slowdown per register that an (estimated) thread lacks."""
    atomic_bytes_per_clock: float = 8.0
    """Atomic additions per SM and clock."""
    sharpness: float = 4.0
    """Exponent of the norm that joins the bounds: infinite is a pure maximum."""
    feeding_warps: float = 4.0
    """Resident warps that reach half of what the matrix units can be fed."""
    unpack_cost: float = 1.0
    """Factor on the estimated instructions that turn packed weights into operands."""
    rows_exponent: float = 0.0
    """Achieved share of all bounds grows by exp(this) per doubling of the tile's rows, and so on:
    what tile shapes do beyond the terms above. Bounded by the peaks."""
    cols_exponent: float = 0.0
    depth_exponent: float = 0.0
    warps_exponent: float = 0.0


BOUNDS: Mapping[str, tuple[float, float]] = {
    "dram_efficiency": (0.5, 0.95),
    "l2_bytes_per_clock": (10.0, 64.0),
    "dram_latency_us": (0.2, 2.0),
    "launch_us": (1.0, 8.0),
    "prologue_us": (0.05, 4.0),
    "clocks_per_instruction": (0.5, 8.0),
    "issue_efficiency": (0.2, 1.0),
    "shared_efficiency": (0.15, 1.0),
    "matrix_efficiency": (0.1, 0.95),
    "group_efficiency": (0.1, 0.95),
    "sync_us": (0.001, 1.5),
    "spill_penalty": (1e-4, 0.2),
    "atomic_bytes_per_clock": (0.5, 64.0),
    "sharpness": (2.0, 12.0),
    "feeding_warps": (0.25, 16.0),
    "unpack_cost": (0.3, 3.0),
    "rows_exponent": (-0.3, 0.3),
    "cols_exponent": (-0.3, 0.3),
    "depth_exponent": (-0.3, 0.3),
    "warps_exponent": (-0.3, 0.3),
}
"""What is physically possible, or nearly; a fit stays inside, a table outside is refused."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How far predictions of a kind were right on problems that the fit had not seen."""

    family: str
    gpu: str
    records: int
    percentile: float
    """Median rank of the measured winner among the legal configurations, as a share of them."""
    regret: float
    """Median of predicted time of the winner over predicted best, less one."""
    fold: float | None
    """Median of measured over predicted time or its inverse; None where no time was recorded."""


@dataclass(frozen=True, slots=True)
class CoefficientTable:
    """Rows by kind and class; what is absent falls back to the kind's default row."""

    rows: Mapping[tuple[str, str], Coefficients] = field(default_factory=dict)
    """(kind, class or "default") → constants."""
    error_factors: Mapping[str, float] = field(default_factory=dict)
    """Kind → factor within which nine of ten measured times lie, on unseen problems."""
    trust: Mapping[str, tuple[Trust, ...]] = field(default_factory=dict)
    """Kind → how its fit did, by family and GPU."""
    fitted: str = "not fitted"
    """Command and data that the table comes from."""

    def row(self, kind: str, arch: GpuArch) -> Coefficients:
        """Constants for a kind of kernel on a GPU."""
        for name in (*_CLASS_OF_TARGET.get(arch.target, ()), "default"):
            if (kind, name) in self.rows:
                return self.rows[kind, name]
        return Coefficients()

    def error_factor(self, kind: str, arch: GpuArch) -> float:
        """Factor within which the true time is expected; wider where nothing was measured."""
        known = self.error_factors.get(kind, 2.0)
        fitted = any((kind, name) in self.rows for name in _CLASS_OF_TARGET.get(arch.target, ()))
        return known if fitted else max(known, 2.0) * 1.25


def kind_of(entry: str) -> str:
    """Kind of an entry point, by its name."""
    prefixes = [prefix for prefix in _KIND_OF_ENTRY if entry.startswith(prefix)]
    return _KIND_OF_ENTRY[max(prefixes, key=len)] if prefixes else "other"


def class_of(arch: GpuArch) -> str:
    """Architecture class whose measurements speak for a GPU."""
    return _CLASS_OF_TARGET.get(arch.target, ("default",))[0]


@cache
def shipped() -> CoefficientTable:
    """The table that comes with this package."""
    return load_table(Path(__file__).with_name("cost_coefficients.json"))


def load_table(path: Path) -> CoefficientTable:
    """Read a table.

    Raises:
        CorruptResultError: unreadable, not of this schema, or a number is missing or out of bounds.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptResultError(f"cannot read the coefficients {path}: {error}") from error
    try:
        return _table(data)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CorruptResultError(f"{path} is no table of coefficients: {error!r}") from error


def dump_table(table: CoefficientTable) -> str:
    """Text of a table, to be read again by `load_table`."""
    rows: dict[str, dict[str, Any]] = {}
    for (kind, name), row in sorted(table.rows.items()):
        numbers = {key: float(f"{value:.4g}") for key, value in dataclasses.asdict(row).items()}
        rows.setdefault(kind, {})[name] = numbers
    data = {
        "schema": SCHEMA,
        "fitted": table.fitted,
        "rows": rows,
        "error_factors": dict(sorted(table.error_factors.items())),
        "trust": {
            kind: [dataclasses.asdict(line) for line in lines]
            for kind, lines in sorted(table.trust.items())
        },
    }
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _table(data: Any) -> CoefficientTable:
    if data["schema"] != SCHEMA:
        raise ValueError(f"schema {data['schema']!r}, this version reads {SCHEMA}")
    rows = {}
    for kind, by_class in data["rows"].items():
        for name, numbers in by_class.items():
            if kind not in KINDS or name not in (*CLASSES, "default"):
                raise ValueError(f"unknown kind or class: {kind!r}, {name!r}")
            if set(numbers) != set(BOUNDS):
                raise ValueError(
                    f"{kind}/{name} lacks or adds {sorted(set(numbers) ^ set(BOUNDS))}"
                )
            checked = {key: _number(numbers[key], *BOUNDS[key]) for key in BOUNDS}
            rows[kind, name] = Coefficients(**checked)
    factors = {kind: _number(value, 1.0, 100.0) for kind, value in data["error_factors"].items()}
    trust = {
        kind: tuple(
            Trust(
                family=str(line["family"]),
                gpu=str(line["gpu"]),
                records=int(line["records"]),
                percentile=_number(line["percentile"], 0.0, 1.0),
                regret=_number(line["regret"], 0.0, math.inf),
                fold=None if line["fold"] is None else _number(line["fold"], 1.0, math.inf),
            )
            for line in lines
        )
        for kind, lines in data["trust"].items()
    }
    return CoefficientTable(rows, factors, trust, str(data["fitted"]))


def _number(value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{value!r} is not a number from {low:g} to {high:g}")
    return float(value)
