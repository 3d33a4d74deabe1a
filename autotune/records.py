"""What is known about a candidate: compile facts, predictions, timings, and the stored selection.

A record whose status and numbers disagree cannot be built: a time exists only where all went well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from autotune.config import Config


class Status(StrEnum):
    """How the evaluation of a candidate ended."""

    OK = "ok"
    COMPILE_ERROR = "compile_error"
    COMPILE_TIMEOUT = "compile_timeout"
    CRASHED = "crashed"
    OVER_LIMIT = "over_limit"
    SPILLS = "spills"
    WRONG_MMA = "wrong_mma"
    DUPLICATE = "duplicate"
    WRONG_RESULT = "wrong_result"
    LAUNCH_ERROR = "launch_error"
    BENCH_TIMEOUT = "bench_timeout"


class Provenance(StrEnum):
    """Where a selection comes from, best first."""

    MEASURED = "measured"
    PREDICTED = "predicted"
    TRANSFERRED = "transferred"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class CompileReport:
    """What the compiler says about one entry point of a candidate, for one target."""

    entry: str
    """Name of the `@triton.jit` function."""
    registers: int
    """Registers per thread (AMD: vector registers, accumulation registers included)."""
    stack_bytes: int
    """Stack frame (AMD: scratch) per thread; more than zero means spilled registers."""
    shared_bytes: int
    """Shared memory (LDS) of one block."""
    num_warps: int
    num_stages: int
    mma: str | None
    """Matrix instruction class: "mma", "wgmma", "tcgen05", "mfma"; None without any."""
    loop: Mapping[str, int]
    """Instructions of one warp in the hottest loop body by class (`mma`, `load_global`,
    `async_copy`, `load_shared`, `store_shared`, `shuffle`, `special`, `float`, `integer`,
    `barrier`, `other`); empty if the kernel has no loop."""
    loop_mma_flops: int
    """Multiply-add operations (2 per pair) of one warp's matrix instructions in that body."""
    binary_bytes: int
    binary_sha: str
    """First 16 hex digits of the sha256 of the machine code."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `dataclasses.asdict`."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which a latency was measured; L2 is flushed before each sample, clocks are as found."""

    mode: str
    """"graph" or "eager"."""
    sm_mhz: int | None
    """Median SM clock between rounds; None where the GPU does not tell."""
    power_capped: float | None
    """Share of rounds that the power limit held back."""
    discarded: int
    """Rounds thrown away because of heat or a power brake."""
    confirmed_us: float | None = None
    """Median of a second race in a fresh process."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A measured latency: median and quartiles of `samples`, microseconds."""

    median_us: float
    q1_us: float
    q3_us: float
    samples: int
    conditions: Conditions | None = None
    """None in files written before they were recorded."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        conditions = data.get("conditions")
        return cls(**{**data, "conditions": conditions and Conditions(**conditions)})


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Outcome of trying one binary (a configuration without its host knobs) on one GPU."""

    config: Config
    status: Status
    reason: str | None = None
    """Why the status is not OK, in one sentence."""
    reports: tuple[CompileReport, ...] = ()
    twin: Config | None = None
    """For a duplicate: the configuration that compiled to the same machine code."""

    def __post_init__(self) -> None:
        # Raised, not asserted: evaluations are read from files too.
        is_ok = self.status is Status.OK
        if is_ok and not self.reports:
            raise ValueError(f"status {self.status} needs reports")
        if is_ok == bool(self.reason):
            raise ValueError(f"status {self.status} does not go with the reason {self.reason!r}")
        if (self.twin is not None) != (self.status is Status.DUPLICATE):
            raise ValueError(f"status {self.status} does not go with the twin {self.twin}")


@dataclass(frozen=True, slots=True)
class Environment:
    """Versions that a record depends on; None where nothing of the kind took part."""

    triton: str
    assembler: str
    """Version of ptxas, or of LLVM's AMDGPU backend."""
    torch: str | None = None
    driver: str | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """The configuration chosen for one point, and why: what `results/` stores."""

    exact: Mapping[str, Any]
    nearest: Mapping[str, int]
    config: Config
    provenance: Provenance
    time_us: float | None
    """Predicted or measured time, as `provenance` says; None for an untested default."""
    error_factor: float | None
    """For predictions: the true time is expected within time × or ÷ this."""
    default_us: float | None
    """Time of the default configuration, of the same provenance; None if it is not usable."""
    floor_us: float
    """Least possible time: bytes over bandwidth or operations over peak, whichever is larger."""
    reason: str
    """One line: what makes the winner win, or why the default was kept."""
    reports: tuple[CompileReport, ...] = field(default=())
    timing: Timing | None = None
    """Spread of a measured time."""
    library: str | None = None
    """Routine of `autotune.library` that was measured faster than any kernel: it serves the point,
    `time_us` is its time, and `config` that of the fastest kernel."""

    def __post_init__(self) -> None:
        # Raised, not asserted: selections are read from files too.
        if self.library is not None and (
            self.provenance is not Provenance.MEASURED or self.reports
        ):
            raise ValueError(
                "a library is selected where it is measured, and has no binary of ours"
            )
        wants = {
            "time_us": self.provenance is not Provenance.DEFAULT,
            "error_factor": self.provenance is Provenance.PREDICTED,
            "timing": self.provenance is Provenance.MEASURED,
        }
        for name, is_wanted in wants.items():
            if (getattr(self, name) is not None) is not is_wanted:
                has = "has no" if is_wanted else "has a"
                raise ValueError(f"a selection that is {self.provenance.value} {has} {name}")

    @property
    def choice(self) -> str:
        """What serves the point, in words: a configuration, or a routine of the library."""
        return str(self.config) if self.library is None else f"library {self.library}"

    def changes_from(self, other: Selection) -> list[str]:
        """What another selection of the same point has otherwise: "num_warps 4→8"."""
        if self.library == other.library:
            return [] if self.library is not None else self.config.changes_from(other.config)
        words = ("the kernel" if s.library is None else s.choice for s in (other, self))
        return ["→".join(words)]

    @property
    def gain(self) -> float | None:
        """Default time over time: above 1 is faster than the default."""
        if self.time_us is None or self.default_us is None:
            return None
        return self.default_us / self.time_us


def to_json(record: Any) -> dict[str, Any]:
    """Turn a record into plain JSON types; mappings and configs become dictionaries."""
    out: dict[str, Any] = {}
    for item in dataclasses.fields(record):
        out[item.name] = _plain(getattr(record, item.name))
    return out


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, StrEnum):
        return value.value
    return value
