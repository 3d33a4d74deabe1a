"""Engines with a quantised KV cache: tokens are those of a cache that is rounded by definition."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from references import NUM_TOKENS, Reference
from tiny_models import LLAMA_8B, save_model

from autotune.paths import data_dir
from runtime.check.rounded_cache import RoundedCache
from runtime.check.scenarios import SCENARIOS
from runtime.cli import main
from runtime.config import KV_CACHE_DTYPES, EngineConfig
from runtime.errors import InvalidParameterError
from runtime.llm import LLM
from runtime.ops import torch_kv
from runtime.ops.torch_build import VARIABLE
from runtime.preemption import PreemptionMode
from runtime.sampling_params import SamplingParams

GetReference = Callable[[str], Reference]
GetRounded = Callable[[str, str], Reference]
GREEDY = SamplingParams(temperature=0, max_tokens=NUM_TOKENS)


def make_llm(found: Reference, kv_dtype: str, **options: Any) -> LLM:
    sizes = {"num_blocks": 120, "block_size": 16, "max_model_len": 128} | options
    return LLM(found.folder, dtype="fp32", kv_cache_dtype=kv_dtype, skip_tokenizer=True, **sizes)


def tokens(llm: LLM, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    outputs = llm.generate(list(prompts), GREEDY)
    llm.engine.scheduler.check_integrity()
    return [list(output.outputs[0].token_ids) for output in outputs]


@pytest.mark.parametrize(
    ("name", "kv_dtype", "kernels"),
    [
        ("llama", "int8", ""),
        ("llama", "fp8", ""),
        ("llama", "int8", "off"),
        ("qwen3", "fp8", ""),
        ("phi3", "int8", ""),
        ("gemma2", "int8", ""),
        ("gemma2", "fp8", "off"),
    ],
)
def test_cold_warm_and_in_chunks(
    rounded_reference: GetRounded,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kv_dtype: str,
    kernels: str,
) -> None:
    if kernels:
        monkeypatch.setenv(VARIABLE, kernels)
    found = rounded_reference(name, kv_dtype)
    llm = make_llm(found, kv_dtype, block_size=5, num_blocks=250, long_prefill_token_threshold=7)
    assert tokens(llm, found.prompts) == found.outputs
    assert tokens(llm, found.prompts) == found.outputs, "with a warm prefix cache"
    assert llm.engine.scheduler.stats().num_prefix_hits > 60


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
@pytest.mark.parametrize("block_size", [1, 64])
def test_block_sizes(rounded_reference: GetRounded, kv_dtype: str, block_size: int) -> None:
    found = rounded_reference("llama", kv_dtype)
    llm = make_llm(found, kv_dtype, block_size=block_size, num_blocks=1200 // block_size + 8)
    assert tokens(llm, found.prompts) == found.outputs


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
@pytest.mark.parametrize("mode", PreemptionMode)
def test_preempted(rounded_reference: GetRounded, kv_dtype: str, mode: PreemptionMode) -> None:
    found = rounded_reference("llama", kv_dtype)
    llm = make_llm(
        found,
        kv_dtype,
        block_size=8,
        num_blocks=13,
        swap_bytes=1 << 20,
        enable_forecast=False,
        preemption_mode=mode,
        long_prefill_token_threshold=7,
    )
    short = [found.prompts[i] for i in (0, 2, 4)]
    expected = [found.outputs[i] for i in (0, 2, 4)]
    assert tokens(llm, [*short, *short]) == [*expected, *expected]
    assert llm.engine.scheduler.stats().num_preemptions[mode.value] > 0


def prompt_logprobs(llm: LLM, prompt: Sequence[int]) -> torch.Tensor:
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    scores = llm.generate([list(prompt)], params)[0].prompt_logprobs
    assert scores is not None
    return torch.tensor(
        [row[token].logprob for row, token in zip(scores[1:], prompt[1:], strict=True) if row]
    )


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_log_probabilities_show_the_rounding(
    reference: GetReference, name: str, kv_dtype: str
) -> None:
    """Close to a rounded cache's, and a hundred times as far from a plain one's."""
    found = reference(name)
    prompt = found.prompts[3]
    ids = torch.tensor([prompt])
    ours = prompt_logprobs(make_llm(found, kv_dtype), prompt)
    expected = []
    for cache in (RoundedCache(found.model.config, kv_dtype), None):
        with torch.inference_mode():
            logits = found.model(ids, past_key_values=cache).logits[0, :-1]
        expected.append(torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0])
    near, far = ((ours - each).abs().mean() for each in expected)
    assert 100 * near < far


def test_samples_that_share_a_prompt(reference: GetReference) -> None:
    """Blocks are shared and copied on writes; each sample is what it is alone."""
    found = reference("llama")
    prompt = found.prompts[1]
    params = SamplingParams(n=3, seed=5, temperature=1.0, max_tokens=12, ignore_eos=True)
    together, apart = (
        make_llm(found, "int8", block_size=8, enable_prefix_caching=caching).generate(
            [prompt] * count, each
        )
        for caching, count, each in ((True, 1, params), (False, 1, params))
    )
    assert together[0].outputs == apart[0].outputs
    assert len({sample.token_ids for sample in together[0].outputs}) > 1


def test_nothing_unwritten_is_read(
    rounded_reference: GetRounded, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kernels in ("", "off"):
        if kernels:
            monkeypatch.setenv(VARIABLE, kernels)
        found = rounded_reference("llama", "fp8")
        llm = make_llm(found, "fp8")
        codes, scales = llm.engine.runner.cache.tensors
        codes.device.fill_(0x7F)  # NaN
        scales.device.fill_(torch.nan)
        assert tokens(llm, found.prompts) == found.outputs


def test_memory_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    command = ["generate", str(tmp_path), "--explain", "--json", "--gpu", "h100"]
    command += ["--block-size", "16", "--kv-cache-gib", "4", "--results", str(data_dir("results"))]
    blocks = {}
    for kv_dtype in KV_CACHE_DTYPES:
        assert main([*command, "--kv-cache-dtype", kv_dtype]) == 0
        found = json.loads(capsys.readouterr().out)
        head_bytes = 128 * 2 if kv_dtype == "auto" else 128 + 4
        block_bytes = 16 * 2 * 32 * 8 * head_bytes
        assert found["num_blocks"] == (4 << 30) // block_bytes
        assert found["kv_bytes"] == found["num_blocks"] * block_bytes
        blocks[kv_dtype] = found["num_blocks"]
        if kv_dtype == "auto":
            continue
        assert found["kv_dtype"] == f"{kv_dtype} scaled by token and head"
        rows = [row for row in found["kernels"] if row["kernel"] != "torch"]
        over = [row for row in rows if row["kernel"].startswith(("paged", "rope"))]
        assert {row["kernel"] for row in over} == {
            "paged_attention_decode", "paged_attention_prefill", "rope_kv_write",
        }  # fmt: skip
        for row in over:
            assert f"kv_dtype={kv_dtype}" in row["problem"]
            assert "kv_scale=token" in row["problem"]
            assert row["tier"] == "default"
            assert kv_dtype in row["operation"]
    assert blocks["int8"] == blocks["fp8"] > 1.93 * blocks["auto"]


def test_unknown_types_list_the_choices(
    reference: GetReference, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(reference("llama").folder)
    for command in (["serve"], ["generate", "--prompt", "a"], ["check"], ["bench"]):
        with pytest.raises(SystemExit) as exit_:
            main([command[0], folder, *command[1:], "--kv-cache-dtype", "int5"])
        assert exit_.value.code == 2
        message = capsys.readouterr().err
        assert all(choice in message for choice in KV_CACHE_DTYPES)
    with pytest.raises(InvalidParameterError, match="one of auto, int8, fp8"):
        EngineConfig(Path(folder), kv_cache_dtype="fp8_e5m2")


def test_a_model_of_transformers_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model("gpt2", tmp_path)
    for command in (["generate", "--prompt-ids", "5"], ["check"]):
        words = [command[0], str(tmp_path), *command[1:], "--kv-cache-dtype", "int8"]
        assert main(words) == 2
        message = capsys.readouterr().err
        assert "kv_cache_dtype must be auto for GPT2LMHeadModel" in message
        assert "LlamaForCausalLM" in message


def run_check(
    found: Reference, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, list[dict[str, Any]]]:
    capsys.readouterr()
    command = ["check", str(found.folder), "--prompts", "3", "--max-tokens", "16", "--json"]
    code = main([*command, *words])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("kv_dtype", "dtype"), [("int8", "fp32"), ("fp8", "bf16")])
def test_check_passes_what_is_right(
    reference: GetReference, capsys: pytest.CaptureFixture[str], kv_dtype: str, dtype: str
) -> None:
    words = ["--kv-cache-dtype", kv_dtype, "--dtype", dtype]
    code, rows = run_check(reference("llama"), capsys, *words)
    assert code == 0, rows
    num_free = len(SCENARIOS) - 1 if dtype == "fp32" else 1
    assert [row["tier"] for row in rows] == ["forced decode"] + ["free running"] * num_free


def test_check_finds_scales_that_are_off(
    reference: GetReference, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    right = torch_kv.dequantise

    def wrong(codes: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return right(codes, scales * 1.02, dtype)

    monkeypatch.setattr(torch_kv, "dequantise", wrong)
    code, rows = run_check(reference("llama"), capsys, "--kv-cache-dtype", "int8")
    assert code == 1
    assert not rows[0]["passed"]
