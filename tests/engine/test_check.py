"""`runtime check` passes what is right, and names the place where something is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from references import Reference

from runtime.check.outcome import Mismatch
from runtime.cli import main
from runtime.kv_cache import KVCache
from runtime.ops.torch_ops import TorchOps
from runtime.sequence import Request

GetReference = Callable[[str], Reference]


def run_check(found: Reference, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    capsys.readouterr()
    command = ["check", str(found.folder), "--prompts", "4", "--max-tokens", "24", "--json"]
    code = main([*command, *words])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_right_engine_passes(
    reference: GetReference, capsys: pytest.CaptureFixture[str], name: str, dtype: str
) -> None:
    code, rows = run_check(reference(name), capsys, "--dtype", dtype)
    assert code == 0
    assert all(row["passed"] and row["num_tokens"] for row in rows)
    assert len(rows) == (10 if dtype == "fp32" else 2)
    if dtype == "fp32":
        notes = {row["scenario"]: row["note"] for row in rows}
        assert not any(note.startswith("0 ") for note in notes.values()), "nothing was exercised"


def test_ends_of_the_model_are_kept_and_passed_over(
    reference: GetReference,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = reference("llama")
    folder = tmp_path / "ends"
    shutil.copytree(plain.folder, folder)
    ends = {"eos_token_id": list(range(0, plain.model.config.vocab_size, 3))}
    (folder / "generation_config.json").write_text(json.dumps(ends), encoding="utf-8")
    ending = replace(plain, folder=folder)

    code, rows = run_check(ending, capsys)
    assert code == 0
    counts = {row["scenario"]: row["num_tokens"] for row in rows}
    assert counts.pop("to the model's own end") < 4 * 24
    assert set(counts.values()) == {4 * 24}

    monkeypatch.setattr(Request, "stop_ids", property(lambda self: frozenset()))
    code, rows = run_check(ending, capsys)
    assert code == 1
    assert [row["scenario"] for row in rows if not row["passed"]] == ["to the model's own end"]


def test_a_swap_that_does_nothing_is_found(
    reference: GetReference,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(KVCache, "swap_in", lambda self, pairs: None)
    code, rows = run_check(reference("llama"), capsys)
    assert code == 1
    wrong = {row["scenario"]: row for row in rows if not row["passed"]}
    assert list(wrong) == ["preempted by swap"]
    place = wrong["preempted by swap"]["mismatch"]
    assert place["position"] > 0
    assert place["logprob"] < 0
    assert place["expected_logprob"] < 0
    assert place["token_id"] != place["expected_token_id"]


@pytest.mark.parametrize("factor", [1.05, 0.9])
def test_a_small_error_at_every_position_is_found_in_half_precision(
    reference: GetReference,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    factor: float,
) -> None:
    right = TorchOps.rms_norm

    def wrong(self: TorchOps, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return right(self, x, weight, eps) * factor

    monkeypatch.setattr(TorchOps, "rms_norm", wrong)
    code, rows = run_check(reference("llama"), capsys, "--dtype", "bf16")
    assert code == 1
    assert not rows[0]["passed"]


def test_the_report_names_both_sides(
    reference: GetReference,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(KVCache, "swap_in", lambda self, pairs: None)
    code = main(["check", str(reference("llama").folder), "--prompts", "4", "--max-tokens", "24"])
    text = capsys.readouterr().out
    assert code == 1
    assert "MISMATCH" in text
    assert "exact ids, preempted by swap: prompt " in text
    assert text.count("(log-probability -") == 2


def test_a_side_that_has_ended() -> None:
    text = str(Mismatch(1, 5, None, None, 7, -0.5))
    assert text == (
        "prompt 1, output token 5: engine has ended, Hugging Face 7 (log-probability -0.500000)"
    )


@pytest.mark.parametrize("words", [["--prompts", "0"], ["--max-tokens", "400"]])
def test_mistakes_exit_2(
    reference: GetReference, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(["check", str(reference("llama").folder), *words]) == 2
    assert "is not valid" in capsys.readouterr().err
