"""Others' recordings of whole tuning spaces: plain row tables, Kernel Tuner's T4 and cache files.

T4 is the exchange format of the auto-tuning community (AutoTuningAssociation, "T4: results"); a
cache file is what Kernel Tuner appends to while it tunes. What they call invalid by a *constraint*
was never legal and is left out; what failed to compile, run or verify stays, as a failure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autotune.config import Config, KnobValue
from autotune.errors import CorruptResultError
from autotune.json_shape import listed, mapping
from autotune.recorded import RecordedSpace, knob_from_values
from autotune.records import Status

Document = Mapping[str, Any]

_US = {"us": 1.0, "µs": 1.0, "ms": 1e3, "milliseconds": 1e3, "s": 1e6, "seconds": 1e6, "ns": 1e-3}
_T4_STATUS = {
    "correct": Status.OK,
    "compile": Status.COMPILE_ERROR,
    "runtime": Status.LAUNCH_ERROR,
    "timeout": Status.BENCH_TIMEOUT,
    "correctness": Status.WRONG_RESULT,
}
_CACHE_STATUS = {
    "CompilationFailedConfig": Status.COMPILE_ERROR,
    "RuntimeFailedConfig": Status.LAUNCH_ERROR,
}
_NEVER_LEGAL = ("constraints", "InvalidConfig")


def _from_table(document: Document, stem: str, source: str) -> RecordedSpace:
    """`columns` and `rows`, the last column `time`; null is a failure."""
    columns, rows = listed(document, "columns", source), listed(document, "rows", source)
    if not columns or columns[-1] != "time" or not all(isinstance(name, str) for name in columns):
        raise CorruptResultError(f"{source}: columns must be names, the last of them time")
    names, unit = columns[:-1], _unit(document.get("time_unit", "ms"), source)
    entries = []
    for row in rows:
        if not isinstance(row, list) or len(row) != len(columns):
            raise CorruptResultError(f"{source}: row {row!r:.60} does not fit the columns")
        time = _time(row[-1], unit, source)
        status = Status.LAUNCH_ERROR if time is None else Status.OK
        entries.append((dict(zip(names, row[:-1], strict=True)), time, status))
    declared = document.get("parameters")
    return _space(
        entries,
        source,
        name=stem,
        gpu=str(document.get("device", "unknown")),
        kernel=str(document.get("kernel", "unknown")),
        problem=document.get("problem_size"),
        origin=str(document.get("source", "")),
        declared=declared if isinstance(declared, dict) else None,
    )


def _from_t4(document: Document, stem: str, source: str) -> RecordedSpace:
    entries = []
    for result in listed(document, "results", source):
        if not isinstance(result, dict):
            raise CorruptResultError(f"{source}: result {result!r:.60} is no object")
        verdict = result.get("invalidity", "correct")
        if verdict in _NEVER_LEGAL:
            continue
        status = _T4_STATUS.get(str(verdict))
        if status is None:
            raise CorruptResultError(
                f"{source}: invalidity {verdict!r:.40}; known: {', '.join(_T4_STATUS)}, constraints"
            )
        wanted = (result.get("objectives") or ["time"])[0]
        found = [
            one
            for one in result.get("measurements") or []
            if isinstance(one, dict) and one.get("name") == wanted
        ]
        time = None
        if status is Status.OK:
            if not found:
                raise CorruptResultError(f"{source}: a correct result has no {wanted!r:.40}")
            time = _time(found[0].get("value"), _unit(found[0].get("unit"), source), source)
            status = Status.LAUNCH_ERROR if time is None else status
        entries.append((mapping(result, "configuration", source), time, status))
    about = document.get("metadata")
    facts = about if isinstance(about, dict) else {}
    return _space(
        entries,
        source,
        name=stem,
        gpu=str(facts.get("device", "unknown")),
        kernel=str(facts.get("kernel", stem)),
        problem=facts.get("problem_size"),
        origin="T4 results",
    )


def _from_cache(document: Document, stem: str, source: str) -> RecordedSpace:
    names = listed(document, "tune_params_keys", source)
    objective = str(document.get("objective", "time"))
    entries = []
    for row in mapping(document, "cache", source).values():
        if not isinstance(row, dict) or not all(name in row for name in names):
            raise CorruptResultError(f"{source}: cache entry {row!r:.60} lacks a tuned parameter")
        outcome = row.get(objective)
        if outcome in _NEVER_LEGAL:
            continue
        failed = isinstance(outcome, str)
        time = None if failed else _time(outcome, _US["ms"], source)
        status = Status.OK if time is not None else Status.LAUNCH_ERROR
        if failed:
            status = _CACHE_STATUS.get(str(outcome), Status.LAUNCH_ERROR)
        entries.append(({name: row[name] for name in names}, time, status))
    return _space(
        entries,
        source,
        name=stem,
        gpu=str(document.get("device_name", "unknown")),
        kernel=str(document.get("kernel_name", stem)),
        problem=document.get("problem_size"),
        origin="Kernel Tuner cache file",
    )


FORMATS: Mapping[
    str, tuple[Callable[[Document], bool], Callable[[Document, str, str], RecordedSpace]]
] = {
    "table of rows": (lambda d: "columns" in d and "rows" in d, _from_table),
    "T4": (lambda d: "results" in d, _from_t4),
    "Kernel Tuner cache": (lambda d: "cache" in d and "tune_params_keys" in d, _from_cache),
}
"""Format → whether a document is of it, and its converter."""


def _space(
    entries: Sequence[tuple[Mapping[str, Any], float | None, Status]],
    source: str,
    name: str,
    gpu: str,
    kernel: str,
    problem: object,
    origin: str,
    declared: Mapping[str, Any] | None = None,
) -> RecordedSpace:
    if not entries:
        raise CorruptResultError(f"{source}: no configuration is recorded")
    names = list(entries[0][0])
    if any(set(values) != set(names) for values, _, _ in entries):
        raise CorruptResultError(f"{source}: configurations do not all have the same knobs")
    columns = {
        knob: [_value(values[knob], knob, source) for values, _, _ in entries] for knob in names
    }
    knobs = [knob_from_values(knob, column) for knob, column in columns.items()]
    if declared is not None and any(knob.name not in declared for knob in knobs):
        raise CorruptResultError(f"{source}: a column is no declared parameter")
    return RecordedSpace(
        name=name,
        gpu=gpu,
        kernel=kernel,
        problem=_problem(problem),
        knobs=tuple(knobs),
        configs=tuple(
            Config(dict(zip(names, row, strict=True)))
            for row in zip(*columns.values(), strict=True)
        ),
        times_us=tuple(time for _, time, _ in entries),
        statuses=tuple(status for _, _, status in entries),
        origin=origin,
    )


def _value(value: object, knob: str, source: str) -> KnobValue:
    """Knob value of a JSON scalar; fractions become text, as knobs are whole numbers or names."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise CorruptResultError(f"{source}: knob {knob!r:.40} has value {value}")
        return int(value) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, bool | str) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    raise CorruptResultError(
        f"{source}: knob {knob!r:.40} has value {value!r:.40}; numbers, words and switches are read"
    )


def _problem(sizes: object) -> dict[str, KnobValue]:
    """Named axes of a problem size given as a list of numbers or as text."""
    if isinstance(sizes, list):
        return {f"size_{i}": size for i, size in enumerate(sizes) if isinstance(size, int | str)}
    return {"size": sizes} if isinstance(sizes, int | str) else {}


def _unit(name: object, source: str) -> float:
    """Microseconds per unit; without a name, milliseconds, as Kernel Tuner measures."""
    if name in (None, ""):
        return _US["ms"]
    if str(name) not in _US:
        raise CorruptResultError(f"{source}: time unit {name!r:.40}; known: {', '.join(_US)}")
    return _US[str(name)]


def _time(value: object, unit: float, source: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CorruptResultError(f"{source}: time {value!r:.40} is no number")
    return round(float(value) * unit, 6)
