"""The table of constants: what ships is sound, what is not is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autotune.arch import GPUS, lookup
from autotune.coefficients import (
    BOUNDS,
    KINDS,
    Coefficients,
    CoefficientTable,
    class_of,
    dump_table,
    kind_of,
    load_table,
    shipped,
)
from autotune.errors import CorruptResultError
from autotune.kernels import load_kernel, searched_kernels


def sound() -> dict[str, Any]:
    table = CoefficientTable(
        rows={("gemm", "default"): Coefficients(), ("gemm", "hopper"): Coefficients(sync_us=0.2)},
        error_factors={"gemm": 1.8},
        fitted="by hand",
    )
    data: dict[str, Any] = json.loads(dump_table(table))
    return data


def write(path: Path, data: object) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_the_shipped_table_has_a_row_for_every_kind_and_gpu() -> None:
    table = shipped()
    for gpu in GPUS.values():
        for kind in KINDS:
            row = table.row(kind, gpu)
            for name, (low, high) in BOUNDS.items():
                assert low <= getattr(row, name) <= high, f"{kind} on {gpu.name}: {name}"
            assert 1.0 < table.error_factor(kind, gpu) < 10.0


def test_the_shipped_table_says_how_well_it_does() -> None:
    for kind in ("attention", "dequant", "gemm"):
        lines = shipped().trust[kind]
        assert lines, kind
        assert all(line.records > 0 for line in lines)


def test_a_table_survives_the_disk(tmp_path: Path) -> None:
    path = write(tmp_path / "table.json", sound())
    table = load_table(path)
    assert table.row("gemm", lookup("h100")).sync_us == 0.2
    assert table.row("gemm", lookup("a100")) == Coefficients()
    assert json.loads(dump_table(table)) == sound()


def test_an_unmeasured_class_falls_back_and_is_trusted_less(tmp_path: Path) -> None:
    table = load_table(write(tmp_path / "table.json", sound()))
    # Blackwell has no row of its own; its nearest relative has.
    assert table.row("gemm", lookup("b200")).sync_us == 0.2
    assert table.error_factor("gemm", lookup("mi300x")) > table.error_factor("gemm", lookup("h100"))


@pytest.mark.parametrize(
    "harm",
    [
        lambda d: d.update(schema=2),
        lambda d: d.pop("rows"),
        lambda d: d.update(rows=[]),
        lambda d: d["rows"].update(convolution=d["rows"]["gemm"]),
        lambda d: d["rows"]["gemm"].update(volta=d["rows"]["gemm"]["default"]),
        lambda d: d["rows"]["gemm"]["default"].pop("sync_us"),
        lambda d: d["rows"]["gemm"]["default"].update(evil=1.0),
        lambda d: d["rows"]["gemm"]["default"].update(dram_efficiency=2.0),
        lambda d: d["rows"]["gemm"]["default"].update(sync_us=-1),
        lambda d: d["rows"]["gemm"]["default"].update(sync_us="0.1"),
        lambda d: d["rows"]["gemm"]["default"].update(sync_us=True),
        lambda d: d["rows"]["gemm"]["default"].update(sync_us=float("nan")),
        lambda d: d["error_factors"].update(gemm=0.5),
        lambda d: d.update(trust={"gemm": [{"family": "x"}]}),
    ],
)
def test_a_hostile_table_is_refused(harm: Any, tmp_path: Path) -> None:
    data = sound()
    harm(data)
    with pytest.raises(CorruptResultError, match=r"table\.json"):
        load_table(write(tmp_path / "table.json", data))


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "[" * 100_000, '{"schema": 1}'])
def test_a_damaged_table_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CorruptResultError, match=r"table\.json"):
        load_table(path)


def test_entry_points_have_kinds() -> None:
    assert kind_of("dequant_gemv") == "gemv"
    assert kind_of("dequant_gemm_split") == "dequant"
    assert kind_of("dequant_gemm_reduce") == "other"
    assert kind_of("paged_attention_decode_merge") == "other"
    assert kind_of("anything else") == "other"


@pytest.mark.parametrize("kernel", searched_kernels())
def test_every_main_entry_point_has_fitted_constants(kernel: str) -> None:
    spec, arch = load_kernel(kernel), lookup("h100")
    point = spec.points(spec.problem_type())[-1]
    work = spec.work(point, spec.default_config(point, arch), arch)[0]
    assert kind_of(work.entry) != "other"
    assert (kind_of(work.entry), "default") in shipped().rows


def test_every_gpu_has_a_class() -> None:
    assert {class_of(gpu) for gpu in GPUS.values()} == {
        "ampere",
        "ada",
        "hopper",
        "blackwell",
        "cdna3",
    }
