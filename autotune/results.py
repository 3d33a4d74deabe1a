"""Reading and writing `results/<gpu>/<kernel>.json`: sorted, numbered, reviewable in a diff.

A file is data and nothing else: whatever is wrong with it is an error with a reason, and nothing in
it is ever executed.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from autotune.arch import GpuArch, lookup
from autotune.config import Config
from autotune.errors import AutotuneError, CorruptResultError
from autotune.files import write_atomically
from autotune.kernels import load_kernel
from autotune.kernels.spec import KernelSpec
from autotune.library import why_not
from autotune.problem import Problem
from autotune.records import CompileReport, Environment, Provenance, Selection, Timing, to_json

SCHEMA_NUMBER = 1
LIBRARY_SCHEMA_NUMBER = 2
"""Of files in which a library was selected, which readers of the first schema do not know. All
others stay as they were."""


@dataclass(frozen=True, slots=True)
class CellResult:
    """All selections of one cell, and how they were found."""

    exact: Mapping[str, Any]
    template_sha: str
    environment: Environment
    search: Mapping[str, Any]
    """Sampler, seed, trials, space sizes, and counts of outcomes by status."""
    selections: tuple[Selection, ...]

    @property
    def key(self) -> str:
        """Canonical text of the exact axes."""
        return json.dumps(dict(self.exact), sort_keys=True)


class ResultsStore:
    """The results folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, gpu: str, kernel: str) -> Path:
        """File of one kernel on one GPU."""
        return self.folder / gpu / f"{kernel}.json"

    def read(self, gpu: str, kernel: str) -> tuple[CellResult, ...]:
        """All cells of a file; an absent file has none.

        Raises:
            CorruptResultError: not readable, not JSON, not of this schema, not of this kernel and
                GPU, or a configuration is not legal; the message says which and where.
        """
        path = self.path(gpu, kernel)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ()
        except (OSError, UnicodeDecodeError) as error:
            raise CorruptResultError(f"cannot read {path}: {error}") from error
        return parse_results(text, gpu, kernel, path)

    def merge(self, gpu: str, kernel: str, cells: Sequence[CellResult]) -> Path:
        """Replace the cells with equal exact axes, keep the others, and write the file.

        Raises:
            CorruptResultError: the existing file cannot be trusted; move it away first.
            StorageError: the file cannot be written; the old one is intact.
        """
        known = {cell.key: cell for cell in self.read(gpu, kernel)}
        known |= {cell.key: cell for cell in cells}
        path = self.path(gpu, kernel)
        write_atomically(path, results_text(gpu, kernel, [known[key] for key in sorted(known)]))
        return path


def parse_results(text: str, gpu: str, kernel: str, source: object) -> tuple[CellResult, ...]:
    """All cells of a document; errors as `ResultsStore.read` raises them, naming `source`."""
    try:
        data = json.loads(text, parse_constant=_finite, parse_float=_finite)
        json.dumps(data, ensure_ascii=False).encode()  # half a surrogate pair is no text
        _validator().validate(data)
    except ValueError as error:
        raise CorruptResultError(f"{source} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise CorruptResultError(f"{source} is nested too deeply") from error
    except jsonschema.ValidationError as error:
        where = "/".join(map(str, error.absolute_path)) or "top level"
        raise CorruptResultError(f"{source}, {where}: {error.message[:200]}") from error
    if (data["gpu"], data["kernel"]) != (gpu, kernel):
        raise CorruptResultError(
            f"{source} says it is for {data['kernel']} on {data['gpu']}: moved by hand?"
        )
    spec, arch = load_kernel(kernel), lookup(gpu)
    cells = tuple(_read_cell(source, spec, arch, cell) for cell in data["cells"])
    if data["schema"] != _schema_number(cells):
        raise CorruptResultError(
            f"{source}: schema {LIBRARY_SCHEMA_NUMBER} is that of files in which a library was "
            f"selected, and no other: this one says {data['schema']}"
        )
    if len({cell.key for cell in cells}) < len(cells):
        raise CorruptResultError(f"{source} has the same cell twice: merged by hand?")
    return cells


def _schema_number(cells: Sequence[CellResult]) -> int:
    chosen = (selection.library for cell in cells for selection in cell.selections)
    return SCHEMA_NUMBER if all(name is None for name in chosen) else LIBRARY_SCHEMA_NUMBER


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{word} is not a finite number")
    return number


@cache
def _validator() -> jsonschema.Draft202012Validator:
    path = Path(__file__).with_name("results.schema.json")
    return jsonschema.Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))


def _read_cell(
    source: object, spec: KernelSpec[Any], arch: GpuArch, data: Mapping[str, Any]
) -> CellResult:
    where = f"{source}, cell {json.dumps(data['exact'])}"
    try:
        problem = spec.problem_type.from_axes(data["exact"])
        if (
            not problem.named_axes().items()
            <= data["exact"].items()
            <= (problem.exact_axes().items())
        ):
            raise CorruptResultError(f"{where}: the exact axes are not those of {spec.name}")
        space = spec.space(problem, arch)
        binaries = {
            digest: tuple(CompileReport.from_json(report) for report in reports)
            for digest, reports in data["binaries"].items()
        }
        selections: list[Selection] = []
        for point in data["points"]:
            at = spec.problem_type.from_axes({**data["exact"], **point["nearest"]})
            if at.nearest_axes() != point["nearest"]:
                raise CorruptResultError(f"{where}: the sizes are not the nearest axes: {at}")
            if any(selection.nearest == point["nearest"] for selection in selections):
                raise CorruptResultError(f"{where}: {at.label('nearest')} is there twice")
            reason = space.why_illegal(point["config"])
            if reason is not None:
                raise CorruptResultError(f"{where}, {at.label('nearest')}: {reason}")
            if "library" in point and (odd := why_not(point["library"], at)) is not None:
                raise CorruptResultError(f"{where}, library {point['library']}: {odd}")
            selections.append(_read_selection(at, point, binaries))
            ordered = data["search"].get("reduction_order")
            order = dict(spec.reduction_order(problem, space.named(selections[-1].config), arch))
            if ordered is not None and ordered != order:
                raise CorruptResultError(
                    f"{where}, {at.label('nearest')}: sums are in another order than is said"
                )
    except (AssertionError, TypeError, ValueError) as error:
        raise CorruptResultError(f"{where}: contradicts itself: {error}") from error
    except CorruptResultError:
        raise
    except AutotuneError as error:
        raise CorruptResultError(f"{where}: {error}") from error
    return CellResult(
        exact=problem.exact_axes(),
        template_sha=data["template_sha"],
        environment=Environment(**data["environment"]),
        search=data["search"],
        selections=tuple(selections),
    )


def _read_selection(
    at: Problem, point: Mapping[str, Any], binaries: Mapping[str, tuple[CompileReport, ...]]
) -> Selection:
    selection = Selection(
        exact=at.exact_axes(),
        nearest=at.nearest_axes(),
        config=Config(point["config"]),
        provenance=Provenance(point["provenance"]),
        time_us=point["time_us"],
        error_factor=point["error_factor"],
        default_us=point["default_us"],
        floor_us=point["floor_us"],
        reason=point["reason"],
        reports=binaries.get(point["binary"], ()),
        timing=None if point["timing"] is None else Timing.from_json(point["timing"]),
        library=point.get("library"),
    )
    if _binary_digest(selection) != point["binary"]:
        raise AutotuneError(f"{at.label('nearest')}: there is no binary {point['binary']}")
    if _rounded(selection.gain) != point["gain"]:
        raise AutotuneError(f"{at.label('nearest')}: gain {point['gain']} is not that of the times")
    return selection


def results_text(gpu: str, kernel: str, cells: Sequence[CellResult]) -> str:
    """JSON with one line per point and per binary, so that a diff shows what changed.

    Optional axes are written where they are not at their default: files without variants are as
    they were before there were any.
    """
    problem_type = load_kernel(kernel).problem_type
    lines = [
        "{",
        f' "schema": {_schema_number(cells)},',
        f' "gpu": {json.dumps(gpu)},',
        f' "kernel": {json.dumps(kernel)},',
        ' "cells": [',
    ]
    for number, cell in enumerate(cells):
        reports: dict[str, list[dict[str, Any]]] = {}
        points = []
        for selection in cell.selections:
            digest = _binary_digest(selection)
            if selection.reports:
                reports[digest] = [to_json(report) for report in selection.reports]
            points.append(_point(selection, digest))
        points.sort(key=lambda point: tuple(point["nearest"].values()))
        lines += [
            "  {",
            f'   "exact": {_line(problem_type.from_axes(cell.exact).named_axes())},',
            f'   "template_sha": {json.dumps(cell.template_sha)},',
            f'   "environment": {_line(to_json(cell.environment))},',
            f'   "search": {_line(cell.search)},',
            '   "points": [',
            *_joined("    ", [_line(point) for point in points]),
            "   ],",
            '   "binaries": {',
            *_joined("    ", [f"{json.dumps(d)}: {_line(reports[d])}" for d in sorted(reports)]),
            "   }",
            "  }" + ("," if number + 1 < len(cells) else ""),
        ]
    return "\n".join([*lines, " ]", "}", ""])


def _point(selection: Selection, digest: str) -> dict[str, Any]:
    # The gain is that of the times as stored, so that a file can be checked and written again.
    times = {"time_us": _rounded(selection.time_us), "default_us": _rounded(selection.default_us)}
    selection = dataclasses.replace(selection, **times)  # type: ignore[arg-type]
    return {
        "nearest": dict(selection.nearest),
        "config": dict(selection.config),
        **({} if selection.library is None else {"library": selection.library}),
        "provenance": selection.provenance.value,
        "time_us": selection.time_us,
        "error_factor": selection.error_factor,
        "default_us": selection.default_us,
        "gain": _rounded(selection.gain),
        "floor_us": _rounded(selection.floor_us),
        "timing": None if selection.timing is None else to_json(selection.timing),
        "binary": digest,
        "reason": selection.reason,
    }


def _binary_digest(selection: Selection) -> str:
    return "-".join(report.binary_sha for report in selection.reports) or "none"


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.4g}")


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _joined(indent: str, items: Sequence[str]) -> list[str]:
    last = len(items) - 1
    return [f"{indent}{item}{',' if index < last else ''}" for index, item in enumerate(items)]
