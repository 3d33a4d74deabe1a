"""Recorded benchmark runs, compared sample by sample: pytest-benchmark's files, or our short ones.

A short file is what is committed as a baseline: one JSON object of machine and samples, a few kB.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.errors import CorruptResultError
from autotune.gate.finding import Finding
from autotune.gate.noise import judge_unpaired
from autotune.gate.verdict import Verdict

RECORDED_LEAST_CHANGE = 0.10
"""Two runs of the same code on a shared machine differ by this much without any reason."""
_CANARY = "canary"
SCHEMA_NAME = "pagetune-benchmarks"
SCHEMA_VERSION = 1
_KEPT_SAMPLES = 30
"""Of each benchmark in a short file, evenly spread over the sorted samples."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Samples by benchmark name, and what machine they were taken on."""

    path: Path
    machine: str
    samples: Mapping[str, tuple[float, ...]]

    @classmethod
    def read(cls, path: Path) -> Recording:
        """Read what `pytest --benchmark-json=FILE --benchmark-save-data` or `to_document` wrote.

        Raises:
            CorruptResultError: the file cannot be read, is not of that format, or has no samples.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CorruptResultError(f"cannot read the recording {path}: {error}") from error
        try:
            if data.get("schema") == SCHEMA_NAME:
                return cls._short(path, data)
            cpu = data["machine_info"]["cpu"]
            machine = f"{cpu.get('brand_raw', 'unknown CPU')}, {cpu.get('count', '?')} cores"
            samples = {
                str(item["fullname"]): _numbers(item["stats"]["data"])
                for item in data["benchmarks"]
            }
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CorruptResultError(
                f"{path} is no recording with samples ({error!r}); make one with pytest "
                "--benchmark-json=FILE --benchmark-save-data"
            ) from error
        return cls(path, machine, samples)

    @classmethod
    def _short(cls, path: Path, data: Mapping[str, Any]) -> Recording:
        if data["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {data['schema_version']!r:.20}, not {SCHEMA_VERSION}")
        samples = {
            str(name): tuple(number / 1e6 for number in _numbers(numbers))
            for name, numbers in data["samples_us"].items()
        }
        return cls(path, str(data["machine"]), samples)

    def to_document(self) -> dict[str, Any]:
        """Short JSON form: the machine, and some samples of each benchmark in microseconds."""
        kept = {}
        for name, samples in sorted(self.samples.items()):
            ranked = sorted(samples)
            count = min(len(ranked), _KEPT_SAMPLES)
            places = (round(i * (len(ranked) - 1) / max(1, count - 1)) for i in range(count))
            kept[name] = [float(f"{ranked[place] * 1e6:.5g}") for place in places]
        return {
            "schema": SCHEMA_NAME,
            "schema_version": SCHEMA_VERSION,
            "machine": self.machine,
            "samples_us": kept,
        }


def _numbers(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if not numbers or not all(math.isfinite(n) and n > 0 for n in numbers):
        raise ValueError("samples must be positive numbers")
    return numbers


def compare_recordings(
    baseline: Recording, candidate: Recording, least: float = RECORDED_LEAST_CHANGE
) -> Iterator[Finding]:
    """Judge each benchmark; all are incomparable on another machine or where a canary moved."""
    obstacle = _obstacle(baseline, candidate, least)
    for name in dict.fromkeys((*baseline.samples, *candidate.samples)):
        if name not in candidate.samples:
            yield Finding(Verdict.MISSING, "", name, "", "not in the candidate")
        elif name not in baseline.samples:
            yield Finding(Verdict.NEW, "", name, "", "not in the baseline")
        elif obstacle is not None:
            yield Finding(Verdict.INCOMPARABLE, "", name, "", obstacle)
        else:
            told = judge_unpaired(baseline.samples[name], candidate.samples[name], least)
            ratio = told.ratio
            detail = (
                f"{ratio.ratio:.3f}x the baseline's time [{ratio.low:.3f}, {ratio.high:.3f}], "
                f"counted from {told.threshold:.1%}"
            )
            yield Finding(told.verdict, "", name, "", detail, ratio=ratio, threshold=told.threshold)


def _obstacle(baseline: Recording, candidate: Recording, least: float) -> str | None:
    if baseline.machine != candidate.machine:
        return f"taken on {baseline.machine} and on {candidate.machine}"
    for name in baseline.samples.keys() & candidate.samples.keys():
        if _CANARY in name:
            told = judge_unpaired(baseline.samples[name], candidate.samples[name], least)
            took = f"{told.ratio.ratio:.2f}x [{told.ratio.low:.2f}, {told.ratio.high:.2f}]"
            if told.verdict is Verdict.AMBIGUOUS:
                return f"the machine was too busy to tell anything: {name} took {took}"
            if told.verdict is not Verdict.SAME:
                return f"the machine changed speed: {name} took {took}"
    return None
