"""Results files: what is written reads back, and what is damaged is refused with a reason."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_cases import make_report, make_selection, sha

from autotune.errors import CorruptResultError, StorageError
from autotune.kernels.paged_attention_decode_problem import DecodeProblem
from autotune.records import Environment, Provenance, Selection
from autotune.results import CellResult, ResultsStore

GPU, KERNEL = "a100", "paged_attention_decode"
SMALL, LARGE = DecodeProblem(), DecodeProblem(block_size=64)


def make_cell(problem: DecodeProblem, *selections: Selection, **changes: Any) -> CellResult:
    """A cell with one selection of every provenance, unless some are given."""
    if not selections:
        selections = tuple(
            make_selection(problem.at(num_seqs=number + 1), provenance=provenance)
            for number, provenance in enumerate(Provenance)
        )
    values: dict[str, Any] = {
        "exact": problem.exact_axes(),
        "template_sha": sha("template"),
        "environment": Environment("3.6.0", "ptxas 13.1.80"),
        "search": {"sampler": "classifier", "seed": 0, "outcomes": {"ok": 3}},
        "selections": selections,
    }
    return CellResult(**values | changes)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A valid file of two cells."""
    store = ResultsStore(tmp_path_factory.mktemp("valid"))
    return store.merge(GPU, KERNEL, [make_cell(SMALL), make_cell(LARGE)]).read_bytes()


@pytest.fixture
def store(tmp_path: Path, content: bytes) -> ResultsStore:
    found = ResultsStore(tmp_path / "results")
    found.path(GPU, KERNEL).parent.mkdir(parents=True)
    found.path(GPU, KERNEL).write_bytes(content)
    return found


@pytest.fixture
def path(store: ResultsStore) -> Path:
    return store.path(GPU, KERNEL)


def read(store: ResultsStore) -> tuple[CellResult, ...]:
    return store.read(GPU, KERNEL)


def test_what_is_written_reads_back(store: ResultsStore) -> None:
    small, large = read(store)
    assert (small.exact, large.exact) == (SMALL.exact_axes(), LARGE.exact_axes())
    for found, written in zip(small.selections, make_cell(SMALL).selections, strict=True):
        rounded: dict[str, Any] = {
            name: None if time is None else float(f"{time:.4g}")
            for name in ("time_us", "default_us", "floor_us")
            for time in [getattr(written, name)]
        }
        assert found == dataclasses.replace(written, **rounded)
    assert small.environment == make_cell(SMALL).environment
    assert small.search == make_cell(SMALL).search


def test_the_file_is_valid_json_sorted_and_ends_its_last_line(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    data = json.loads(text)
    assert text.endswith("}\n")
    assert [cell["exact"]["block_size"] for cell in data["cells"]] == [16, 64]
    for cell in data["cells"]:
        sizes = [list(point["nearest"].values()) for point in cell["points"]]
        assert sizes == sorted(sizes)


def test_writing_what_was_read_changes_no_byte(store: ResultsStore, path: Path) -> None:
    before = path.read_bytes()
    store.merge(GPU, KERNEL, [])
    assert path.read_bytes() == before
    store.merge(GPU, KERNEL, read(store))
    assert path.read_bytes() == before


def test_the_order_of_merging_does_not_matter(store: ResultsStore, tmp_path: Path) -> None:
    other = ResultsStore(tmp_path / "other")
    other.merge(GPU, KERNEL, [make_cell(LARGE)])
    path = other.merge(GPU, KERNEL, [make_cell(SMALL)])
    assert path.read_bytes() == store.path(GPU, KERNEL).read_bytes()


def test_merging_replaces_a_cell_and_keeps_the_others(store: ResultsStore) -> None:
    before = read(store)
    store.merge(GPU, KERNEL, [make_cell(LARGE, make_selection(LARGE), search={"seed": 7})])
    small, large = read(store)
    assert small == before[0]
    assert large.search == {"seed": 7}
    assert len(large.selections) == 1


def test_an_absent_file_has_no_cells(store: ResultsStore) -> None:
    assert store.read("h100", KERNEL) == ()
    assert store.read(GPU, "fused_mlp") == ()


def test_a_point_on_two_binaries_keeps_both_reports(tmp_path: Path) -> None:
    reports = (make_report(), make_report(entry="merge", mma=None, binary_sha=sha("merge")))
    store = ResultsStore(tmp_path / "two")
    store.merge(GPU, KERNEL, [make_cell(SMALL, make_selection(SMALL, reports=reports))])
    assert read(store)[0].selections[0].reports == reports


def refuse(store: ResultsStore, words: str = "") -> None:
    """The file is refused with these words, its path and exit code 4; nothing else happens."""
    with pytest.raises(CorruptResultError, match=re.escape(words)) as caught:
        read(store)
    assert caught.value.exit_code == 4
    assert str(store.path(GPU, KERNEL)) in str(caught.value)


def test_every_truncation_is_refused(store: ResultsStore, path: Path) -> None:
    content = path.read_bytes()
    end = len(content.rstrip())
    for length in [*range(0, end, 97), end - 1]:
        path.write_bytes(content[:length])
        refuse(store, "not valid JSON")


Edit = Callable[[dict[str, Any]], object]


def first_point(data: dict[str, Any]) -> dict[str, Any]:
    point: dict[str, Any] = data["cells"][0]["points"][0]
    return point


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: d.update(schema=2), "this one says 2"),
        (lambda d: d.update(schema=3), "3 is not one of"),
        (lambda d: d.update(schema="1"), "'1' is not one of"),
        (lambda d: d.pop("schema"), "'schema' is a required property"),
        (lambda d: d.update(note="hi"), "'note' was unexpected"),
        (lambda d: d.update(gpu="h100"), "says it is for paged_attention_decode on h100"),
        (lambda d: d.update(kernel="fused_mlp"), "says it is for fused_mlp on a100"),
        (lambda d: d["cells"][0]["exact"].update(block_size=48.5), "wrong type"),
        (lambda d: d["cells"][0]["exact"].update(block_size=0), "block_size=0"),
        (lambda d: d["cells"][0]["exact"].update(block_size=10**400), "lookup"),
        (lambda d: d["cells"][0]["exact"].update(softcap="50"), "wrong type"),
        (lambda d: d["cells"][0]["exact"].update(dtype="int3"), "unknown dtype"),
        (lambda d: d["cells"][0]["exact"].pop("dtype"), "exact axes are not those of"),
        (lambda d: d["cells"][0]["exact"].update(num_seqs=4), "exact axes are not those of"),
        (lambda d: d["cells"].append(d["cells"][0]), "twice"),
        (lambda d: d["cells"][0]["points"].append(first_point(d)), "num_seqs=1,"),
        (lambda d: d["cells"][0].update(points=[]), "cells/0/points"),
        (lambda d: d["cells"][0].update(template_sha="../../x"), "template_sha"),
        (lambda d: d["cells"][0]["environment"].update(shell="rm"), "'shell'"),
        (lambda d: d["cells"][0]["environment"].update(triton=None), "triton"),
        (lambda d: first_point(d)["nearest"].update(odd=3), "unknown axis"),
        (lambda d: first_point(d)["nearest"].update(num_seqs=-1), "num_seqs"),
        (lambda d: first_point(d)["nearest"].update(num_seqs=2.0), "wrong type"),
        (lambda d: first_point(d)["nearest"].pop("num_seqs"), "nearest axes"),
        (lambda d: first_point(d)["nearest"].update(block_size=64), "nearest axes"),
        (lambda d: first_point(d)["config"].update(tile=48), "tile=48 is not one of"),
        (lambda d: first_point(d)["config"].update(tile=128, num_stages=5), "shared memory"),
        (lambda d: first_point(d)["config"].update(tile=32.0), "tile=32.0"),
        (lambda d: first_point(d)["config"].update(num_splits=True), "num_splits=True"),
        (lambda d: first_point(d)["config"].update(evil="__import__('os')"), "evil"),
        (lambda d: first_point(d)["config"].pop("tile"), "tile"),
        (lambda d: first_point(d).update(provenance="guessed"), "guessed"),
        (lambda d: first_point(d).update(provenance="default"), "contradicts itself"),
        (lambda d: first_point(d).update(time_us=None), "contradicts itself"),
        (lambda d: first_point(d).update(time_us=0), "time_us"),
        (lambda d: first_point(d).update(time_us=-1.5), "time_us"),
        (lambda d: first_point(d).update(error_factor=2.0), "contradicts itself"),
        (lambda d: first_point(d).update(gain=3.0), "gain"),
        (lambda d: first_point(d).update(binary=sha("another")), "no binary"),
        (lambda d: first_point(d).update(reason="x" * 501), "reason"),
        (lambda d: first_point(d).update(reason="\ud800"), "surrogates"),
        (lambda d: first_point(d)["timing"].update(samples=0), "samples"),
        (lambda d: d["cells"][0]["binaries"][sha("main")][0].update(registers="9"), "registers"),
        (lambda d: d["cells"][0]["binaries"][sha("main")][0].update(mma="hmma"), "mma"),
        (lambda d: d["cells"][0]["binaries"][sha("main")][0].update(binary_sha=sha("x")), "binary"),
    ],
)
def test_edits_are_refused_with_the_reason(
    store: ResultsStore, path: Path, edit: Edit, words: str
) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    edit(data)
    path.write_text(json.dumps(data))
    refuse(store, words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not valid JSON"),
        (b"null", "top level"),
        (b"[]", "top level"),
        (b"\xff\xfe\x00", "cannot read"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"schema":' * 50_000, "nested too deeply"),
        (b"9" * 10_000, "not valid JSON"),
        (b"<<<<<<< HEAD\n{}", "not valid JSON"),
    ],
)
def test_other_content_is_refused(
    store: ResultsStore, path: Path, content: bytes, words: str
) -> None:
    path.write_bytes(content)
    refuse(store, words)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_not_finite_are_refused(
    store: ResultsStore, path: Path, number: str
) -> None:
    text = path.read_text(encoding="utf-8")
    assert '"time_us": 123.5' in text
    path.write_text(text.replace('"time_us": 123.5', f'"time_us": {number}', 1))
    refuse(store, "not a finite number")


def test_a_folder_in_the_place_of_the_file(store: ResultsStore, path: Path) -> None:
    path.unlink()
    path.mkdir()
    refuse(store, "cannot read")


def test_a_bad_file_is_not_merged_over(store: ResultsStore, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])
    before = path.read_bytes()
    with pytest.raises(CorruptResultError):
        store.merge(GPU, KERNEL, [make_cell(SMALL)])
    assert path.read_bytes() == before


def test_a_failed_write_leaves_the_old_file(
    store: ResultsStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        store.merge(GPU, KERNEL, [make_cell(SMALL, make_selection(SMALL))])
    assert path.read_bytes() == before
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def survives(store: ResultsStore, content: bytes) -> None:
    """Refused, or good enough to be written again, which then changes no byte."""
    path = store.path(GPU, KERNEL)
    path.write_bytes(content)
    try:
        once = store.merge(GPU, KERNEL, []).read_bytes()
    except CorruptResultError:
        return
    assert store.merge(GPU, KERNEL, []).read_bytes() == once


fuzz = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(
    at=st.floats(0, 1, exclude_max=True),
    removed=st.integers(0, 40),
    inserted=st.binary(max_size=8)
    | st.sampled_from([b"\\", b'"', b"{", b"]", b"e9", b"-", b"\x00"]),
)
def test_changed_bytes_never_raise_anything_else(
    store: ResultsStore, content: bytes, at: float, removed: int, inserted: bytes
) -> None:
    start = int(at * len(content))
    survives(store, content[:start] + inserted + content[start + removed :])


@fuzz
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_flipped_bits_never_raise_anything_else(
    store: ResultsStore, content: bytes, at: float, bit: int
) -> None:
    flipped = bytearray(content)
    flipped[int(at * len(content))] ^= 1 << bit
    survives(store, bytes(flipped))


OTHER_VALUES = (
    *(b"0", b"-1", b"1", b"2.5", b"16", b"1e30", b"1e999", b"9" * 60, b"9" * 5000, b"true"),
    *(b"null", b"[]", b"{}", b'""', b'"\\ud800"', b'"bf16"', b'"16"', b'{"a": [[]]}'),
)
VALUE = re.compile(rb'(?<=: )("[^"]*"|-?[\d.]+|true|false|null)')


@fuzz
@given(
    at=st.floats(0, 1, exclude_max=True),
    value=st.sampled_from(OTHER_VALUES),
)
def test_swapped_values_never_raise_anything_else(
    store: ResultsStore, content: bytes, at: float, value: bytes
) -> None:
    found = list(VALUE.finditer(content))
    old = found[int(at * len(found))]
    survives(store, content[: old.start()] + value + content[old.end() :])
