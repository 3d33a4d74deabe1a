"""Recorded spaces on disk: our compact gzip columns, and whatever `foreign_spaces` understands.

The compact file is one JSON object: knobs with their values, and columns of value numbers, so that
18,000 configurations take some 130 kB. `autotune/recorded.schema.json` describes it.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.config import Config, KnobValue
from autotune.errors import CorruptResultError
from autotune.files import write_bytes_atomically
from autotune.foreign_spaces import FORMATS
from autotune.json_shape import listed, mapping, text
from autotune.knob import Knob
from autotune.recorded import MOST_CONFIGS, RecordedSpace, checked
from autotune.records import Status

SCHEMA_NAME = "pagetune-recorded-space"
SCHEMA_VERSION = 1
_MOST_BYTES = 256 << 20
"""Unpacked: a small file may claim to unpack into any size."""


def read_space(path: Path) -> RecordedSpace:
    """Read a recorded space of any known format, gzip or plain.

    Raises:
        CorruptResultError: unreadable, too large, no JSON, of no known format, or senseless.
    """
    document = _read_json(path)
    stem = path.name.removesuffix(".gz").removesuffix(".json").removesuffix(".space")
    source = str(path)
    try:
        if document.get("schema") == SCHEMA_NAME:
            return checked(_from_document(document, stem, source), source)
        for recognises, convert in FORMATS.values():
            if recognises(document):
                return checked(convert(document, stem, source), source)
    except RecursionError as error:
        raise CorruptResultError(f"{path} is nested too deeply") from error
    known = ", ".join((SCHEMA_NAME, *FORMATS))
    raise CorruptResultError(f"{path} is no recorded space of a known format: {known}")


def write_space(space: RecordedSpace, path: Path) -> None:
    """Write the compact format; the same space gives the same bytes.

    Raises:
        StorageError: the file cannot be written.
    """
    text = json.dumps(to_document(space), separators=(",", ":"), ensure_ascii=False)
    # No name and no time in the header: a re-recorded space that is equal shows no difference.
    write_bytes_atomically(path, gzip.compress(text.encode(), compresslevel=9, mtime=0))


def to_document(space: RecordedSpace) -> dict[str, Any]:
    """JSON form of a space."""
    numbers = {knob.name: {v: i for i, v in enumerate(knob.values)} for knob in space.knobs}
    statuses = list(dict.fromkeys(space.statuses))
    return {
        "schema": SCHEMA_NAME,
        "schema_version": SCHEMA_VERSION,
        "gpu": space.gpu,
        "kernel": space.kernel,
        "problem": dict(space.problem),
        "origin": space.origin,
        **({} if space.complete else {"complete": False}),
        "knobs": [
            {"name": knob.name, "values": list(knob.values), "ordered": knob.ordered}
            for knob in space.knobs
        ],
        "columns": {
            name: [known[config[name]] for config in space.configs]
            for name, known in numbers.items()
        },
        "time_us": list(space.times_us),
        "statuses": [status.value for status in statuses],
        "status": [statuses.index(status) for status in space.statuses],
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes() if path.stat().st_size <= _MOST_BYTES else None
        if data is not None and data[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                data = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptResultError(f"cannot read {path}: {error}") from error
    if data is None or len(data) > _MOST_BYTES:
        raise CorruptResultError(f"{path} is over {_MOST_BYTES >> 20} MiB: no recorded space is")
    try:
        document = json.loads(data)
    except ValueError as error:
        raise CorruptResultError(f"{path} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise CorruptResultError(f"{path} is nested too deeply") from error
    if not isinstance(document, dict):
        raise CorruptResultError(f"{path} does not hold a JSON object")
    return document


def _from_document(document: Mapping[str, Any], stem: str, source: str) -> RecordedSpace:
    def refuse(complaint: str) -> CorruptResultError:
        return CorruptResultError(f"{source}: {complaint}")

    if document.get("schema_version") != SCHEMA_VERSION:
        found = document.get("schema_version")
        raise refuse(f"schema version {found!r:.40}; this version reads {SCHEMA_VERSION}")
    knobs = tuple(_knob(entry, source) for entry in listed(document, "knobs", source))
    if len({knob.name for knob in knobs}) != len(knobs):
        raise refuse("two knobs have one name")
    times = listed(document, "time_us", source)
    if len(times) > MOST_CONFIGS:
        raise refuse(f"{len(times)} configurations; at most {MOST_CONFIGS} can be replayed")
    columns = mapping(document, "columns", source)
    if set(columns) != {knob.name for knob in knobs}:
        raise refuse("columns and knobs do not have the same names")
    chosen: list[list[KnobValue]] = []
    for knob in knobs:
        steps = _numbers(listed(columns, knob.name, source), len(knob.values), len(times))
        if steps is None:
            raise refuse(f"column {knob.name} must hold {len(times)} numbers of its knob's values")
        chosen.append([knob.values[step] for step in steps])
    names = listed(document, "statuses", source)
    if not set(map(str, names)) <= set(Status):
        raise refuse(f"statuses {names!r:.80}; known are {', '.join(Status)}")
    kinds = _numbers(listed(document, "status", source), len(names), len(times))
    if kinds is None:
        raise refuse(f"status must hold {len(times)} numbers of statuses")
    if not all(time is None or type(time) in (int, float) for time in times):
        raise refuse("time_us must hold numbers and nulls only")
    return RecordedSpace(
        name=stem,
        gpu=text(document, "gpu", source),
        kernel=text(document, "kernel", source),
        problem={k: v for k, v in mapping(document, "problem", source).items() if _is_value(v)},
        knobs=knobs,
        configs=tuple(
            Config(dict(zip((knob.name for knob in knobs), values, strict=True)))
            for values in zip(*chosen, strict=True)
        ),
        times_us=tuple(None if time is None else float(time) for time in times),
        statuses=tuple(Status(names[kind]) for kind in kinds),
        origin=text(document, "origin", source),
        complete=_is_complete(document, source),
    )


def _is_complete(document: Mapping[str, Any], source: str) -> bool:
    said = document.get("complete", True)
    if not isinstance(said, bool):
        raise CorruptResultError(f"{source}: complete is {said!r:.40}; true or false is expected")
    return said


def _knob(entry: object, source: str) -> Knob:
    if not isinstance(entry, dict):
        raise CorruptResultError(f"{source}: a knob is {entry!r:.40}; an object is expected")
    name, values = text(entry, "name", source), listed(entry, "values", source)
    # JSON has one notion of equal numbers; True and 1 are equal in Python, too.
    if not values or not all(map(_is_value, values)) or len(set(values)) != len(values):
        raise CorruptResultError(
            f"{source}: knob {name!r:.40} needs distinct whole numbers, words or switches"
        )
    return Knob(name, tuple(values), "", ordered=entry.get("ordered") is True)


def _is_value(value: object) -> bool:
    return isinstance(value, int | str) and (isinstance(value, str) or abs(value) < 2**53)


def _numbers(column: list[Any], below: int, length: int) -> list[int] | None:
    """The column if it has `length` numbers from 0 to below `below`, else None."""
    sound = len(column) == length and all(type(n) is int and 0 <= n < below for n in column)
    return column if sound else None
