"""Recorded spaces: ours reads back as written, others' are understood, and nonsense is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import autotune
from autotune.config import Config
from autotune.errors import CorruptResultError
from autotune.knob import Knob
from autotune.recorded import RecordedSpace
from autotune.recorded_files import read_space, to_document, write_space
from autotune.records import Status

SCHEMA = Path(autotune.__file__).with_name("recorded.schema.json")
KNOBS = (
    Knob("tile", (16, 32, 64), ""),
    Knob("mode", ("a", "b"), "", ordered=False),
    Knob("fast", (False, True), ""),
)
CONFIGS = tuple(
    Config({"tile": tile, "mode": mode, "fast": fast})
    for tile in (16, 32, 64)
    for mode in ("a", "b")
    for fast in (False, True)
)


def space() -> RecordedSpace:
    times = [None if i == 3 else 10.0 + i for i in range(len(CONFIGS))]
    statuses = [Status.SPILLS if time is None else Status.OK for time in times]
    return RecordedSpace(
        "toy", "a100", "gemm", {"m": 16}, KNOBS, CONFIGS, tuple(times), tuple(statuses), "made up"
    )


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "toy.space.json.gz"
    write_space(space(), path)
    assert read_space(path) == space()
    first = path.read_bytes()
    write_space(read_space(path), path)
    assert path.read_bytes() == first


def test_a_written_file_obeys_the_shipped_schema() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(json.dumps(to_document(space()))), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(to_document(space()) | {"time_us": [-1.0]}, schema)


def test_fractions_of_the_optimum() -> None:
    toy = space()
    assert toy.best_us == 10.0
    assert [toy.fractions()[index] for index in (0, 3, 10)] == [1.0, 0.0, 0.5]


def change(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(fields)


def in_column(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def apply(document: dict[str, Any]) -> None:
        document["columns"][name][2] = value

    return apply


def in_knob(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["knobs"][0].update(fields)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (change(schema_version=2), "schema version 2"),
        (change(gpu=7), "gpu is 7"),
        (change(knobs=[]), "same names"),
        (change(knobs=[1]), "a knob is 1"),
        (change(columns={}), "same names"),
        (change(time_us=[1.0]), "column tile must hold 1"),
        (change(time_us=[1.0] * 12), "status spills"),
        (change(time_us=[float("nan")] * 12, status=[0] * 12), "no time"),
        (change(time_us=[-1.0] * 12, status=[0] * 12), "no time"),
        (change(time_us=["1"] * 12), "numbers and nulls"),
        (change(time_us=[True] * 12), "numbers and nulls"),
        (change(time_us=[None] * 12, status=[1] * 12), "every configuration failed"),
        (change(status=[0] * 12), "None"),
        (change(status=[9] * 12), "status must hold"),
        (change(statuses=["ok", "tired"]), "known are ok"),
        (change(statuses=["ok", ["spills"]]), "known are ok"),
        (in_column("tile", 3), "column tile"),
        (in_column("tile", -1), "column tile"),
        (in_column("tile", True), "column tile"),
        (in_column("tile", 1), "recorded twice"),
        (in_knob(values=[16, 16, 32]), "distinct"),
        (in_knob(values=[16, 32, [64]]), "distinct"),
        (in_knob(values=[16, 32, 2.5]), "distinct"),
        (in_knob(values=[16, 32, 10**30]), "distinct"),
        (in_knob(name="mode"), "one name"),
    ],
)
def test_a_spoilt_file_is_refused_with_a_reason(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    document = to_document(space())
    spoil(document)
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(document))
    with pytest.raises(CorruptResultError, match=complaint) as refused:
        read_space(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe",
        pytest.param(b"[" * 100_000, id="nested without end"),
        b'{"results": 1}',
        b'{"results": []}',
        b'{"results": [1]}',
        b'{"columns": ["x"], "rows": [[1], [1]]}',
        b'{"columns": ["x", "time"], "rows": [[1]]}',
        b'{"columns": ["x", "time"], "rows": [[{}, 1]]}',
        b'{"columns": ["x", "time"], "rows": [[1, "fast"]]}',
        b'{"columns": ["x", "time"], "rows": [[1, 1e999], [2, 1]]}',
        b'{"columns": ["x", "time"], "rows": [[1, 1], [2, 1]], "time_unit": "parsec"}',
        b'{"tune_params_keys": ["x"], "cache": {"1": {"time": 1}}}',
        # gzip writes the time of day, which would make each collection of the tests another
        pytest.param(gzip.compress(b'{"results": []}')[:-9], id="gzip cut short"),
        pytest.param(gzip.compress(b"no json"), id="gzip of no json"),
        b"\x1f\x8b and no gzip",
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.json.gz"
    path.write_bytes(content)
    with pytest.raises(CorruptResultError, match="foreign"):
        read_space(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptResultError, match="cannot read"):
        read_space(tmp_path / "absent.json")


def test_a_file_that_unpacks_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotune.recorded_files._MOST_BYTES", 1 << 16)
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * (1 << 20)))
    assert path.stat().st_size < 1 << 16
    with pytest.raises(CorruptResultError, match="no recorded space is"):
        read_space(path)


TABLE = {
    "device": "GPU X",
    "kernel": "gemm",
    "problem_size": [64, 32],
    "time_unit": "ms",
    "columns": ["x", "kind", "half", "time"],
    "rows": [[2, "a", 0.5, 1.5], [4, "a", 1.0, None], [2, "b", 0.5, 0.75]],
}


def t4(x: int, verdict: str, value: object) -> dict[str, Any]:
    return {
        "configuration": {"x": x},
        "invalidity": verdict,
        "objectives": ["time"],
        "measurements": [{"name": "time", "value": value, "unit": "ms"}],
    }


def read_document(tmp_path: Path, document: object) -> RecordedSpace:
    path = tmp_path / "others.json.gz"
    path.write_bytes(gzip.compress(json.dumps(document).encode()))
    return read_space(path)


def test_a_table_of_rows(tmp_path: Path) -> None:
    found = read_document(tmp_path, TABLE)
    assert (found.name, found.gpu, found.kernel) == ("others", "GPU X", "gemm")
    assert found.problem == {"size_0": 64, "size_1": 32}
    assert found.times_us == (1500.0, None, 750.0)
    assert found.statuses == (Status.OK, Status.LAUNCH_ERROR, Status.OK)
    assert dict(found.configs[1]) == {"x": 4, "kind": "a", "half": 1}
    assert [(k.name, k.values, k.ordered) for k in found.knobs] == [
        ("x", (2, 4), True),
        ("kind", ("a", "b"), False),
        ("half", ("0.5", 1), False),
    ]


def test_t4_results(tmp_path: Path) -> None:
    results = [t4(1, "correct", 2.0), t4(2, "compile", None), t4(3, "constraints", None)]
    results += [t4(4, "timeout", None), t4(5, "correctness", 0.1)]
    found = read_document(tmp_path, {"schema_version": "1.0.0", "results": results})
    assert [config["x"] for config in found.configs] == [1, 2, 4, 5]
    assert found.times_us == (2000.0, None, None, None)
    assert found.statuses[1:] == (
        Status.COMPILE_ERROR,
        Status.BENCH_TIMEOUT,
        Status.WRONG_RESULT,
    )
    with pytest.raises(CorruptResultError, match="invalidity 'moody'"):
        read_document(tmp_path, {"results": [t4(1, "moody", 1.0)]})


def test_a_kernel_tuner_cache(tmp_path: Path) -> None:
    outcomes = [0.5, "CompilationFailedConfig", "InvalidConfig", "RuntimeFailedConfig", 0.25]
    cache = {str(x): {"x": x, "time": outcome} for x, outcome in enumerate(outcomes)}
    document = {"device_name": "GPU X", "kernel_name": "k", "problem_size": 64}
    document |= {"tune_params_keys": ["x"], "cache": cache}
    found = read_document(tmp_path, document)
    assert [config["x"] for config in found.configs] == [0, 1, 3, 4]
    assert found.times_us == (500.0, None, None, 250.0)
    assert found.statuses[1:3] == (Status.COMPILE_ERROR, Status.LAUNCH_ERROR)


def test_constants_are_no_choice(tmp_path: Path) -> None:
    found = read_document(tmp_path, {"columns": ["x", "y", "time"], "rows": [[1, 7, 1], [2, 7, 2]]})
    assert [knob.name for knob in found.searched] == ["x"]
    with pytest.raises(CorruptResultError, match="nothing to search"):
        read_document(tmp_path, {"columns": ["x", "time"], "rows": [[1, 1]]})
