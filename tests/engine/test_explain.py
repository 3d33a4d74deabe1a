"""`--explain`: what an engine would run on, told before any weight is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_models import LLAMA_8B

from autotune.paths import data_dir
from runtime.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of which only the config is there."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    return tmp_path


@pytest.mark.parametrize("command", ["generate", "serve"])
def test_for_a_gpu_that_is_not_here(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    words = [command, str(folder), "--explain", "--gpu", "h100", "--json"]
    assert main([*words, "--results", str(data_dir("results"))]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["gpu"], found["ops"], found["dtype"]) == ("h100", "triton", "bf16")
    block_bytes = 2 * 32 * 8 * 128 * 2 * found["block_size"]
    assert found["kv_bytes"] == found["num_blocks"] * block_bytes <= 1 << 30
    assert "predicted" in found["block_size_reason"]
    assert found["can_capture"]
    kernels = {row["kernel"] for row in found["kernels"]}
    searched = {"paged_attention_decode", "paged_attention_prefill", "fused_mlp"}
    assert kernels == searched | {"rms_norm", "rope_kv_write", "torch"}
    untuned = [row for row in found["kernels"] if row["kernel"] in ("rms_norm", "rope_kv_write")]
    assert {row["tier"] for row in untuned} == {"default"}
    tuned = [row for row in found["kernels"] if row["kernel"] in searched]
    assert {row["tier"] for row in tuned} == {"predicted"} == {row["provenance"] for row in tuned}
    assert all(row["gain"] >= 1 for row in tuned)


def test_tables_are_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", str(folder), "--explain", "--gpu", "a100", "--block-size", "32"]
    assert main(words) == 0
    out = capsys.readouterr().out
    for part in (
        "NVIDIA A100",
        "32 tokens: as asked",
        "decode attention",
        "nothing tuned",
        "torch",
    ):
        assert part in out


def test_on_the_cpu(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(folder), "--explain", "--ops", "torch", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ops"], found["gpu"], found["can_capture"]) == ("torch", None, False)
    assert [row["kernel"] for row in found["kernels"]] == ["torch"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--explain", "--gpu", "h1000"], 2, "h100"),
        (["--gpu", "h100"], 2, "--explain"),
        (["--explain", "--ops", "triton"], 3, "--ops torch"),
    ],
)
def test_what_cannot_be_planned_says_what_to_do(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["generate", str(folder), *words]) == code
    assert message in capsys.readouterr().err
