"""`autotune compare`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.arch import lookup
from autotune.cli.output import print_json, print_table
from autotune.errors import UsageError
from autotune.gate.tree import Tree
from autotune.kernels import KERNELS, load_kernel
from autotune.records import Selection

EXAMPLES = """examples:
  autotune compare ../main .                  two checkouts: what was chosen, and at what time
  autotune compare old-results new-results --gpu h100 --kernel dequant_gemm --json"""


@dataclass(frozen=True, slots=True)
class _Pair:
    """One point on both sides; None where a side has no selection."""

    gpu: str
    kernel: str
    point: str
    a: Selection | None
    b: Selection | None

    @property
    def ratio(self) -> float | None:
        """Time of B over time of A; None unless both are of the same provenance."""
        if self.a is None or self.b is None or self.a.provenance is not self.b.provenance:
            return None
        if self.a.time_us is None or self.b.time_us is None:
            return None
        return self.b.time_us / self.a.time_us

    @property
    def verdict(self) -> str:
        """In one or two words."""
        if self.a is None:
            return "only in B"
        if self.b is None:
            return "only in A"
        return "other config" if self.b.changes_from(self.a) else "same config"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("a", type=Path, metavar="A", help="checkout or results folder")
    parser.add_argument("b", type=Path, metavar="B", help="checkout or results folder")
    parser.add_argument("--gpu", action="append", help="only this GPU; repeatable")
    parser.add_argument("--kernel", action="append", help="only this kernel; repeatable")
    parser.add_argument("--all", action="store_true", help="list points that are the same, too")
    parser.add_argument("--json", action="store_true", help="print JSON")


def handle(options: argparse.Namespace) -> int:
    """Compare, point by point; always 0, for it judges nothing."""
    sides = Tree.open(options.a), Tree.open(options.b)
    for side in sides:
        if side.results is None:
            raise UsageError(f"{side.folder} has no results to compare")
    for name in options.kernel or ():
        load_kernel(name)
    found = {path.parent.name for s in sides if s.results for path in s.results.glob("*/*.json")}
    gpus = [lookup(name).name for name in options.gpu or sorted(found)]
    pairs = [
        pair for gpu in gpus for kernel in options.kernel or KERNELS
        for pair in _pairs(gpu, kernel, *sides)
    ]  # fmt: skip
    if options.json:
        print_json([_json(pair) for pair in pairs])
        return 0
    listed = [p for p in pairs if options.all or p.verdict != "same config" or p.ratio != 1.0]
    if listed:
        columns = ("gpu", "kernel", "point", "what", ">A µs", ">B µs", ">B/A", "knobs A → B")
        print_table("what was chosen", columns, [_row(pair) for pair in listed])
    ratios = [pair.ratio for pair in pairs if pair.ratio is not None]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None
    print(
        f"{len(pairs)} points, {len(listed)} differ"
        + ("" if mean is None else f"; B takes {mean:.3f}x the time of A (geometric mean)")
    )
    return 0


def _pairs(gpu: str, kernel: str, a: Tree, b: Tree) -> Iterator[_Pair]:
    spec = load_kernel(kernel)
    first, second = (
        {
            spec.problem_type.from_axes({**s.exact, **s.nearest}).label(): s
            for cell in side.store().read(gpu, kernel)
            for s in cell.selections
        }
        for side in (a, b)
    )
    for point in dict.fromkeys((*first, *second)):
        yield _Pair(gpu, kernel, point, first.get(point), second.get(point))


def _row(pair: _Pair) -> tuple[str, ...]:
    knobs = ""
    if pair.a is not None and pair.b is not None:
        knobs = ", ".join(pair.b.changes_from(pair.a))
    ratio = "" if pair.ratio is None else f"{pair.ratio:.3f}"
    times = (_time(pair.a), _time(pair.b))
    return (pair.gpu, pair.kernel, pair.point, pair.verdict, *times, ratio, knobs)


def _time(selection: Selection | None) -> str:
    if selection is None or selection.time_us is None:
        return "-"
    return f"{selection.time_us:.1f} {selection.provenance.value[0]}"


def _json(pair: _Pair) -> dict[str, Any]:
    def side(selection: Selection | None) -> dict[str, Any] | None:
        if selection is None:
            return None
        return {
            "config": dict(selection.config),
            "library": selection.library,
            "provenance": selection.provenance.value,
            "time_us": selection.time_us,
        }

    return {
        "gpu": pair.gpu,
        "kernel": pair.kernel,
        "point": pair.point,
        "verdict": pair.verdict,
        "a": side(pair.a),
        "b": side(pair.b),
        "ratio": pair.ratio,
    }
