"""What a finished run prints: a table per kernel, or one JSON document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from autotune.arch import GpuArch
from autotune.cli.output import print_table
from autotune.cli.trust import trust_document, trust_line
from autotune.records import to_json
from autotune.standing import Standing
from autotune.tune import Tuned

_COLUMNS = (
    "cell",
    ">legal",
    ">tried",
    ">sound",
    ">gain",
    ">best gain",
    ">of floor",
    "most often changed from the default",
)


def run_document(
    arch: GpuArch, done: Sequence[Tuned], compiled: int, seconds: float
) -> dict[str, Any]:
    """All selections of a run as JSON types."""
    return {
        "gpu": arch.name,
        "seconds": round(seconds, 1),
        "compiled": compiled,
        "cells": [
            {
                "kernel": tuned.cell.spec.name,
                "exact": dict(tuned.result.exact),
                "search": dict(tuned.result.search),
                "file": str(tuned.path),
                "trust": trust_document(tuned.cell.spec.name, arch),
                "points": [
                    {**to_json(selection), "gain": selection.gain}
                    for selection in tuned.result.selections
                ],
            }
            for tuned in done
        ],
    }


def print_summary(arch: GpuArch, done: Sequence[Tuned], compiled: int, seconds: float) -> None:
    """Print a table per kernel, the rate, and where the files are."""
    kernels: dict[str, list[Tuned]] = {}
    for tuned in done:
        kernels.setdefault(tuned.cell.spec.name, []).append(tuned)
    for kernel, members in kernels.items():
        print_table(
            f"{kernel} on {arch.name} ({_provenance(members)})",
            _COLUMNS,
            [_row(tuned, members) for tuned in members],
        )
        if "predicted" in _provenance(members):
            print(trust_line(kernel, arch))
        print()
    tried = sum(sum(t.result.search["outcomes"].values()) for t in done)
    print(
        f"{tried} candidates judged in {seconds:.0f} s, {compiled} of them compiled "
        f"({compiled / seconds:.1f}/s); gain: time of the default over time of the selection, "
        "geometric mean over the points"
    )
    for path in dict.fromkeys(tuned.path for tuned in done):
        print(f"wrote {path}")
    first = done[0].cell
    print(f"why each won: autotune show {first.spec.name} --gpu {arch.name}")


def _provenance(members: Sequence[Tuned]) -> str:
    kinds = {s.provenance.value for tuned in members for s in tuned.result.selections}
    return ", ".join(sorted(kinds))


def _row(tuned: Tuned, members: Sequence[Tuned]) -> tuple[str, ...]:
    search, selections = tuned.result.search, tuned.result.selections
    gains = [s.gain for s in selections if s.gain is not None]
    shares = [s.floor_us / s.time_us for s in selections if s.time_us]
    # Axes that all cells of this kernel share say nothing in a table of them.
    varying = {
        name: value
        for name, value in tuned.result.exact.items()
        if any(other.result.exact[name] != value for other in members)
    }
    label = " ".join(f"{name}={value}" for name, value in varying.items()) or "all"
    return (
        label,
        str(search["space"]["legal"]),
        str(sum(search["outcomes"].values())),
        str(search["outcomes"].get("ok", 0)),
        f"{_geometric_mean(gains):.2f}x" if gains else "-",
        f"{max(gains):.2f}x" if gains else "-",
        f"{_geometric_mean(shares):.0%}" if shares else "-",
        _usual(tuned),
    )


def _usual(tuned: Tuned) -> str:
    """The most frequent difference from the default."""
    texts = []
    for point, selection in zip(tuned.cell.points, tuned.result.selections, strict=True):
        changed = selection.config.changes_from(tuned.cell.defaults[point])
        words = ", ".join(changed) or "the default itself"
        texts.append(words if selection.library is None else selection.choice)
    return max(texts, key=texts.count)


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def print_standings(standings: Sequence[Standing]) -> None:
    """Print how the selections stand beside peers; nothing without any."""
    if not standings:
        return
    rows = [
        (
            standing.kernel,
            standing.point,
            standing.peer,
            _microseconds(standing.our_us),
            _microseconds(standing.peer_us),
            "-" if standing.ratio is None else f"{standing.ratio.ratio:.2f}x",
            standing.fault or "",
        )
        for standing in standings
    ]
    columns = ("kernel", "point", "peer", ">ours µs", ">peer µs", ">ours is faster by", "fault")
    print_table("beside others, timed in turns", columns, rows)


def _microseconds(time_us: float | None) -> str:
    return "-" if time_us is None else f"{time_us:.1f}"
