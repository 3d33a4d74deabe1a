"""The report: complete, self-contained, the same twice, and honest about what was measured."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from autotune.arch import lookup
from autotune.cli import main
from autotune.kernels import load_kernel
from autotune.paths import data_dir
from autotune.records import Provenance, Timing
from autotune.report.figures import block_size_table
from autotune.report.material import gather
from autotune.report.page import page
from autotune.results import CellResult, ResultsStore
from autotune.search.trials import StudyRecord

A100 = lookup("a100")


def cells(kernel: str) -> tuple[CellResult, ...]:
    return ResultsStore(data_dir("results")).read("a100", kernel)


def measured(cell: CellResult) -> CellResult:
    """The same cell as if its times had been taken on the GPU, a fifth slower than predicted."""
    return dataclasses.replace(
        cell,
        selections=tuple(
            dataclasses.replace(
                s,
                provenance=Provenance.MEASURED,
                time_us=s.time_us * 1.2,
                error_factor=None,
                timing=Timing(s.time_us * 1.2, s.time_us, s.time_us * 1.3, 30),
            )
            for s in cell.selections
            if s.time_us is not None
        ),
    )


def test_the_page_loads_nothing_and_is_the_same_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["report", "--gpu", "a100", "--results", str(data_dir("results"))]
    texts = []
    for name in ("one.html", "two.html"):
        assert main([*words, "--out", str(tmp_path / name)]) == 0
        texts.append((tmp_path / name).read_text())
    assert "1 GPUs" in capsys.readouterr().out
    assert texts[0] == texts[1]
    links = re.findall(r"(?:href|src)=[\"']?([^\"'> ]+)", texts[0])
    assert [link for link in links if not link.startswith("#")] == []
    assert "<script" not in texts[0]
    for kernel in ("dequant_gemm", "fused_mlp", "paged_attention_decode"):
        assert f"id='a100-{kernel}'" in texts[0]
    assert "How much does the block size matter?" in texts[0]


def test_every_selection_is_listed() -> None:
    material = gather(load_kernel("fused_mlp"), A100, cells("fused_mlp"))
    text = page([(A100, [material])], [])
    for row in material.rows:
        assert row.selection.reason.replace("→", "→") in text
    assert f"{len(material.rows)} selections" in text


def test_measured_times_stand_beside_predictions() -> None:
    spec = load_kernel("fused_mlp")
    predicted = gather(spec, A100, cells("fused_mlp"))
    assert "The model against the clock" not in page([(A100, [predicted])], [])
    timed = gather(spec, A100, [measured(cell) for cell in cells("fused_mlp")])
    assert all(row.is_measured for row in timed.rows)
    assert [r.predicted_us for r in timed.rows] == [r.predicted_us for r in predicted.rows]
    assert all(row.predicted_us for row in timed.rows)
    assert "The model against the clock" in page([(A100, [timed])], [])


def test_block_sizes_are_compared_at_equal_sizes() -> None:
    rows = gather(load_kernel("paged_attention_decode"), A100, cells("paged_attention_decode")).rows
    table = block_size_table(rows)
    contexts = {context for context, _ in table}
    assert {size for _, size in table} == {16, 32, 64, 128}
    for context in contexts:
        assert min(value for (c, _), value in table.items() if c == context) >= 1.0
    doubled = [
        dataclasses.replace(
            row, selection=dataclasses.replace(row.selection, time_us=2 * row.selection.time_us)
        )
        if row.selection.exact["block_size"] == 16
        else row
        for row in rows
    ]
    assert min(v for (_, size), v in block_size_table(doubled).items() if size == 16) > 1.9


def test_searches_are_drawn_with_their_rejects() -> None:
    material = gather(load_kernel("fused_mlp"), A100, cells("fused_mlp"))
    study = StudyRecord(
        "s", "fused_mlp/a100/x", (5.0, None, 4.0, 6.0), (("block_m", 0.8), ("num_warps", 0.2))
    )
    other = dataclasses.replace(study, cell="fused_mlp/h100/x")
    text = page([(A100, [material])], [study, other])
    assert "1 searches, trial by trial" in text
    assert "Which knobs matter" in text


def test_nothing_to_report_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r.html"
    assert main(["report", "--gpu", "b200", "--results", str(tmp_path), "--out", str(out)]) == 2
    assert "nothing to report" in capsys.readouterr().err
    assert not out.exists()
