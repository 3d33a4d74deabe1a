"""Exports: valid in their formats, honest about what was predicted, nothing dropped silently."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from autotune.arch import GPUS
from autotune.cli import main
from autotune.export import FORMATS
from autotune.export.vllm import _DEVICE_NAMES
from autotune.paths import data_dir
from autotune.results import ResultsStore


def export(
    capsys: pytest.CaptureFixture[str], out: Path, name: str, *words: str
) -> tuple[dict[str, Any], list[str]]:
    results = str(data_dir("results"))
    command = ["export", "--gpu", "a100", "--format", name, "--out", str(out), "--json"]
    assert main([*command, "--results", results, *words]) == 0
    report = json.loads(capsys.readouterr().out)
    return {Path(p).name: json.loads(Path(p).read_text()) for p in report["written"]}, report[
        "left_out"
    ]


def selections(kernel: str) -> list[Any]:
    store = ResultsStore(data_dir("results"))
    return [s for cell in store.read("a100", kernel) for s in cell.selections]


def test_plain_has_every_selection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files, left_out = export(capsys, tmp_path, "json")
    assert not left_out
    for name, rows in files.items():
        kernel = name.removeprefix("a100-").removesuffix(".json")
        assert len(rows) == len(selections(kernel))
        assert all(row["provenance"] == "predicted" for row in rows)


def test_t4_names_predictions_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files, left_out = export(capsys, tmp_path, "t4", "--kernel", "fused_mlp")
    assert len(files) + len(left_out) == len(selections("fused_mlp"))
    for content in files.values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", content["schema_version"])
        (result,) = content["results"]
        assert result.keys() >= {"configuration", "times", "invalidity", "correctness"}
        assert result["objectives"] == ["predicted_time"]
        assert result["times"]["runtimes"] == []
        assert result["measurements"][0]["unit"] == "ms"


def test_vllm_files_have_a_tile_for_each_batch_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, left_out = export(capsys, tmp_path, "vllm", "--kernel", "fused_mlp")
    assert sum(len(tiles) - 1 for tiles in files.values()) + len(left_out) == len(
        selections("fused_mlp")
    )
    tile_keys = {"BLOCK_SIZE_M", "BLOCK_SIZE_N", "BLOCK_SIZE_K", "GROUP_SIZE_M", "num_warps",
                 "num_stages"}  # fmt: skip
    for name, tiles in files.items():
        assert re.fullmatch(r"N=\d+,K=\d+,device_name=NVIDIA_A100-SXM4-80GB,dtype=.*\.json", name)
        assert tiles.pop("triton_version")
        assert all(int(rows) > 0 and tile.keys() == tile_keys for rows, tile in tiles.items())
    files, left_out = export(capsys, tmp_path, "vllm", "--kernel", "paged_attention_decode")
    assert not files
    assert "not a matrix product" in left_out[0]


def test_device_names_are_those_that_drivers_give() -> None:
    for gpu, name in _DEVICE_NAMES.items():
        spoken = name.replace("_", " ")
        assert any(re.fullmatch(p, spoken, re.I) for p in GPUS[gpu].device_names), gpu


def test_an_unknown_format_lists_those_that_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--gpu", "a100", "--format", "yaml", "--out", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert all(name in message for name in FORMATS)


def test_compare_lists_what_differs_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = data_dir("results")
    other = tmp_path / "results" / "a100"
    other.mkdir(parents=True)
    text = (ours / "a100" / "fused_mlp.json").read_text()
    data = json.loads(text)
    dropped = data["cells"][0]["points"].pop()
    (other / "fused_mlp.json").write_text(json.dumps(data))
    words = ["--gpu", "a100", "--kernel", "fused_mlp"]
    assert main(["compare", str(ours), str(tmp_path), *words, "--json"]) == 0
    pairs = json.loads(capsys.readouterr().out)
    (gone,) = [pair for pair in pairs if pair["verdict"] == "only in A"]
    assert f"m={dropped['nearest']['m']}" in gone["point"]
    assert {pair["ratio"] for pair in pairs if pair is not gone} == {1.0}
    assert main(["compare", str(ours), str(tmp_path), *words]) == 0
    assert "1 differ; B takes 1.000x" in capsys.readouterr().out
    assert main(["compare", str(ours), str(tmp_path / "nowhere")]) == 2
