"""A problem whose fastest configuration somebody measured, as the cost model sees it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

import numpy as np

from autotune.arch import GpuArch
from autotune.launch import Launch
from autotune.tiles import Array, blocks_per_sm

Columns = dict[str, Array]
"""Knob name → its value in every candidate: [candidates]."""


@dataclass(frozen=True, slots=True)
class Case:
    """One problem on one GPU: all legal candidates, and which of them won."""

    family: str
    """Kernel and variant, as tables name it."""
    gpu: str
    kind: str
    """Rows of the coefficient table that the kernel belongs to."""
    problem: Mapping[str, Any]
    knobs: Columns
    launches: tuple[Launch, ...]
    """Launched in order; every field is a number or an array of [candidates]."""
    winners: tuple[int, ...]
    """Candidates that were recorded as fastest, one per record."""
    times_us: tuple[float, ...] = ()
    """Measured times of the winners, where they were recorded."""

    @property
    def size(self) -> int:
        """Number of candidates."""
        return len(next(iter(self.knobs.values())))

    @property
    def digest(self) -> int:
        """A number of the family and the problem only, so that all GPUs share one split."""
        text = json.dumps([self.family, dict(self.problem)], sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    @property
    def held_out(self) -> bool:
        """Whether it judges the fit (half of all problems) rather than serves it."""
        return self.digest % 2 == 1


@dataclass(frozen=True, slots=True)
class Candidates:
    """Configurations of one problem before the illegal ones are dropped."""

    knobs: Columns
    launches: tuple[Launch, ...]
    legal: Any
    """Boolean array of [candidates]."""


def make_case(
    family: str,
    gpu: GpuArch,
    kind: str,
    problem: Mapping[str, Any],
    candidates: Candidates,
    records: Sequence[Mapping[str, Any]],
    times_us: Sequence[float] = (),
) -> Case | None:
    """Drop what is illegal and find the records; None if none of them is among the candidates."""
    knobs = keep(candidates.knobs, candidates.legal)
    found = [find(knobs, record) for record in records]
    at = tuple(index for index in found if index is not None)
    if not at:
        return None
    times = tuple(t for t, index in zip(times_us, found, strict=False) if index is not None)
    launches = tuple(select(launch, candidates.legal) for launch in candidates.launches)
    return Case(family, gpu.name, kind, problem, knobs, launches, at, times)


def select(launch: Launch, chosen: Any) -> Launch:
    """The same launch for some of its candidates."""
    cut = {}
    for field in fields(Launch):
        value = getattr(launch, field.name)
        cut[field.name] = value[chosen] if isinstance(value, np.ndarray) else value
    return Launch(**cut)


def grid(space: Mapping[str, Sequence[float]]) -> Columns:
    """All combinations of knob values."""
    rows = np.array(list(product(*space.values())), dtype=np.float64).reshape(-1, len(space))
    return {name: rows[:, index].copy() for index, name in enumerate(space)}


def keep(columns: Columns, mask: Any) -> Columns:
    """The candidates where `mask` holds."""
    return {name: values[mask] for name, values in columns.items()}


def find(columns: Columns, wanted: Mapping[str, float]) -> int | None:
    """Index of the candidate with these values, None if it is not among them."""
    mask = np.ones(len(next(iter(columns.values()))), dtype=bool)
    for name, values in columns.items():
        mask &= values == wanted[name]
    at = np.flatnonzero(mask)
    return int(at[0]) if len(at) else None


def fitting(registers: Array, shared_bytes: Array, warps: Array, arch: GpuArch) -> dict[str, Any]:
    """Launch fields that say how many programs fit, and what their threads lack."""
    blocks = np.maximum(1.0, blocks_per_sm(registers, shared_bytes, warps, arch))
    spilled = np.maximum(0.0, registers - arch.max_registers_per_thread)
    return {"warps": warps, "blocks": blocks, "spilled": spilled}


def powers(low: int, high: int) -> tuple[int, ...]:
    """Powers of two from `low` to `high`, both included."""
    found = []
    while low <= high:
        found.append(low)
        low *= 2
    return tuple(found)
