"""One operation of an engine, in words and numbers for people: what runs it, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TORCH = "torch"
"""In place of a kernel's name."""


@dataclass(frozen=True, slots=True)
class KernelRow:
    """What runs an operation for a range of sizes."""

    operation: str
    """And the layers or sizes it is about: "decode attention, window 4096"."""
    sizes: str
    """"1-8 sequences"; "all" for one that serves every size."""
    kernel: str
    """Name of the kernel, or "torch"."""
    problem: str | None = None
    """Exact axes, as `autotune` writes them."""
    tier: str | None = None
    config: Mapping[str, object] | None = None
    library: str | None = None
    """Routine of torch's that was measured faster than the kernel, and serves in its place."""
    source: str | None = None
    provenance: str | None = None
    """What the times are: "predicted", "measured"."""
    time_us: float | None = None
    """At the point that the configuration was chosen for."""
    gain: float | None = None
    """Time of the untuned default over it."""
    reason: str | None = None
    """Where torch stands in for a kernel: why."""


@dataclass(frozen=True, slots=True)
class OpsReport:
    """What an operation set runs on."""

    gpu: str | None
    """Row of the GPU table; None for a CPU."""
    gpu_note: str | None
    rows: tuple[KernelRow, ...]
    refused: tuple[str, ...] = ()
    """Results files that could not be trusted, with the reason."""
