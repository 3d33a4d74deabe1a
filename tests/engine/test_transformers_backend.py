"""Models by transformers' code over paged attention say what they say by themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from references import NUM_TOKENS, Reference
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, GENERIC

from runtime.check.engine_bench import run_all
from runtime.cli import main
from runtime.config import EngineConfig
from runtime.engine import LLMEngine
from runtime.errors import InvalidParameterError, UnsupportedModelError, WeightError
from runtime.generic.paged_attention import PagedAttention
from runtime.model_input import ModelInput
from runtime.models.transformers_backend import TransformersModel
from runtime.preemption import PreemptionMode
from runtime.sampling_params import SamplingParams

GetReference = Callable[[str], Reference]
GREEDY = SamplingParams(temperature=0, max_tokens=NUM_TOKENS)


def make_engine(folder: Path, like: LLMEngine | None = None, **options: Any) -> LLMEngine:
    base = EngineConfig(
        folder, dtype="fp32", skip_tokenizer=True, max_model_len=128, num_blocks=160
    )
    model = None if like is None else like.runner.model
    return LLMEngine(dataclasses.replace(base, **{"block_size": 8, **options}), model=model)


def tokens(engine: LLMEngine, prompts: list[list[int]]) -> list[list[int]]:
    outputs = run_all(engine, prompts, [GREEDY] * len(prompts))
    engine.scheduler.check_integrity()
    return [list(output.outputs[0].token_ids) for output in outputs]


@pytest.mark.parametrize("name", GENERIC)
def test_exact_in_every_scenario(reference: GetReference, name: str) -> None:
    found = reference(name)
    assert len({token for output in found.outputs for token in output}) > 15, "hides mistakes"
    engine = make_engine(found.folder)
    assert engine.model_config.impl == "transformers"
    assert tokens(engine, found.prompts) == found.outputs
    assert tokens(engine, found.prompts) == found.outputs, "with a warm prefix cache"
    assert engine.scheduler.stats().num_prefix_hits > 60
    engine = make_engine(found.folder, engine, long_prefill_token_threshold=7)
    assert tokens(engine, found.prompts) == found.outputs, "in chunks"
    for mode in PreemptionMode:
        engine = make_engine(
            found.folder,
            engine,
            num_blocks=13,
            swap_bytes=1 << 20,
            enable_forecast=False,
            enable_prefix_caching=False,
            preemption_mode=mode,
        )
        short = [found.prompts[i] for i in (0, 2, 4)] * 2
        assert tokens(engine, short) == [found.outputs[i] for i in (0, 2, 4)] * 2, mode
        assert engine.scheduler.stats().num_preemptions[mode.value] > 0


@pytest.mark.parametrize("name", CONFIGS)
def test_our_families_by_either_code(reference: GetReference, name: str) -> None:
    found = reference(name)
    engine = make_engine(found.folder, model_impl="transformers", long_prefill_token_threshold=11)
    assert engine.model_config.impl == "transformers"
    assert tokens(engine, found.prompts) == found.outputs
    sizes = make_engine(found.folder, engine, model_impl="auto").model_config
    assert sizes.impl == "native"
    for field in dataclasses.fields(sizes.__class__.__base__):
        ours, theirs = getattr(sizes, field.name), getattr(engine.model_config, field.name)
        assert ours == theirs, field.name


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["mixtral", "gemma3"])
def test_half_precision_passes_its_own_check(
    reference: GetReference, name: str, dtype: str
) -> None:
    found = reference(name)
    engine = make_engine(found.folder, dtype=dtype)
    assert [len(output) for output in tokens(engine, found.prompts[:2])] == [NUM_TOKENS] * 2


def test_no_masks_and_no_copies_of_the_cache(
    reference: GetReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = reference("gemma3")
    engine = make_engine(found.folder)
    seen = []
    attend = PagedAttention.__call__

    def watch(
        self: PagedAttention,
        module: Any,
        query: Any,
        key: Any,
        value: Any,
        mask: Any,
        **options: Any,
    ) -> Any:
        seen.append((key.shape[2], mask))
        return attend(self, module, query, key, value, mask, **options)

    monkeypatch.setattr(PagedAttention, "__call__", watch)
    assert tokens(engine, [found.prompts[3]]) == [found.outputs[3]]
    assert {length for length, _ in seen} == {len(found.prompts[3]), 1}, "only new tokens"
    assert all(mask is None for _, mask in seen)


class TestPlantedMistakes:
    """What would give wrong tokens is refused at load."""

    def test_positions_ignored(
        self, reference: GetReference, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        forward = TransformersModel.forward

        def wrong(self: TransformersModel, step: ModelInput, cache: Any) -> torch.Tensor:
            return forward(self, dataclasses.replace(step, positions=step.positions * 0), cache)

        monkeypatch.setattr(TransformersModel, "forward", wrong)
        with pytest.raises(UnsupportedModelError, match="does not compute what it computes"):
            make_engine(reference("gpt2").folder)

    @pytest.mark.parametrize("dtype", ["fp32", "bf16"])
    def test_a_state_beside_the_cache(
        self, reference: GetReference, monkeypatch: pytest.MonkeyPatch, dtype: str
    ) -> None:
        from transformers.models.granite.modeling_granite import GraniteMLP

        forward = GraniteMLP.forward

        def shifted(self: Any, x: torch.Tensor) -> torch.Tensor:
            before = torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), dim=1)
            mixed: torch.Tensor = forward(self, x + 0.5 * before)
            return mixed

        monkeypatch.setattr(GraniteMLP, "forward", shifted)
        with pytest.raises(UnsupportedModelError, match="something else than keys"):
            make_engine(reference("granite").folder, dtype=dtype)

    def test_positions_that_matter_from_far_on(self, reference: GetReference) -> None:
        found = reference("llama4")
        assert tokens(make_engine(found.folder), found.prompts) == found.outputs
        with pytest.raises(UnsupportedModelError, match="at positions 16376 to 16383"):
            make_engine(found.folder, max_model_len=16_384)

    def test_scores_that_differ(
        self, reference: GetReference, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        logits = TransformersModel.logits
        monkeypatch.setattr(TransformersModel, "logits", lambda self, x: 2 * logits(self, x))
        with pytest.raises(UnsupportedModelError, match="does not compute what it computes"):
            make_engine(reference("cohere2").folder)


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("model.norm.weight", None, r"'model\.norm\.weight' is missing"),
        ("model.layers.1.block_sparse_moe.experts.2.w3.weight", None, "cannot make|is missing"),
        ("lm_head.weight", (3, 48), r"lm_head.weight' has shape \[3, 48\], .* \[151, 48\]"),
        ("model.layers.0.self_attn.q_proj.bias", (48,), "q_proj.bias' belongs to no layer"),
    ],
)
def test_wrong_tensors(
    reference: GetReference,
    tmp_path: Path,
    name: str,
    shape: tuple[int, ...] | None,
    match: str,
) -> None:
    found = reference("mixtral").folder
    (tmp_path / "config.json").write_bytes((found / "config.json").read_bytes())
    tensors = load_file(found / "model.safetensors")
    assert shape is not None or name in tensors
    tensors.pop(name, None)
    if shape is not None:
        tensors[name] = torch.zeros(shape)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightError, match=match):
        make_engine(tmp_path)


def test_unknown_impl(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="one of auto, native, transformers"):
        EngineConfig(tmp_path, model_impl="vllm")


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_check_passes_and_says_whose_code_it_is(
    reference: GetReference, capsys: pytest.CaptureFixture[str], dtype: str
) -> None:
    folder = str(reference("cohere2").folder)
    words = ["check", folder, "--prompts", "3", "--max-tokens", "16", "--dtype", dtype]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "Cohere2ForCausalLM runs transformers' code" in captured.err
    assert "MISMATCH" not in captured.out


def test_generate_says_whose_code_it_is(
    reference: GetReference, capsys: pytest.CaptureFixture[str]
) -> None:
    found = reference("llama")
    ids = ",".join(map(str, found.prompts[0]))
    words = ["generate", str(found.folder), "--prompt-ids", ids, "--max-tokens", "4"]
    assert main(words) == 0
    native = capsys.readouterr()
    assert main([*words, "--model-impl", "transformers"]) == 0
    generic = capsys.readouterr()
    assert native.out == generic.out
    assert "transformers' code" not in native.err
    assert "LlamaForCausalLM runs transformers' code" in generic.err
