"""Models that transformers has and paged attention cannot serve are refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_model
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from runtime.errors import ModelError, UnknownArchitectureError, UnsupportedModelError
from runtime.generic.config import GenericConfig
from runtime.generic.context_guard import check_context
from runtime.llm import LLM
from runtime.model_config import load_model_config


def write_config(folder: Path, model_type: str, changes: Mapping[str, Any]) -> None:
    """A config.json as a checkpoint has it; no weights are needed to refuse it."""
    config = AutoConfig.for_model(model_type, **changes)
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]]
    config.save_pretrained(folder)


@pytest.mark.parametrize(
    ("model_type", "changes", "match"),
    [
        ("mamba", {}, "kind linear_attention|recurrent"),
        ("rwkv", {}, "recurrent|does not go through"),
        ("qwen3_next", {}, "kind linear_attention"),
        ("jamba", {}, "kind linear_attention|kind mamba"),
        ("bloom", {}, "does not go through transformers' attention interface"),
        ("falcon", {}, "does not go through transformers' attention interface"),
        ("bart", {"is_encoder_decoder": False, "is_decoder": True}, "does not take positions"),
        ("bart", {}, "has an encoder"),
        ("bert", {}, "neither causal nor a causal window"),
        ("llama4_text", {"num_hidden_layers": 4}, "neither causal nor a causal window"),
        ("gpt_oss", {"num_hidden_layers": 2}, "'s_aux'"),
        ("diffllama", {}, "one set of weights attends in several layers"),
        ("mllama", {}, "layers attend|cross-attention|cannot build|takes more than a text"),
    ],
)
def test_refused_by_configuration(
    tmp_path: Path, model_type: str, changes: dict[str, Any], match: str
) -> None:
    write_config(tmp_path, model_type, changes)
    with pytest.raises(UnsupportedModelError, match=match):
        load_model_config(tmp_path)


@pytest.mark.parametrize(
    ("fields", "error", "match"),
    [
        (
            {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"},
            UnsupportedModelError,
            "takes more than a text",
        ),
        (
            {"architectures": ["OwnForCausalLM"], "auto_map": {"AutoModelForCausalLM": "m.Own"}},
            UnsupportedModelError,
            "never run",
        ),
        (
            {"architectures": ["MixtraalForCausalLM"], "model_type": "mixtral"},
            UnknownArchitectureError,
            r"Did you mean MixtralForCausalLM.*and \d+ causal language models of transformers",
        ),
        (
            {"architectures": ["MixtralForCausalLM"], "model_type": "gpt2"},
            ModelError,
            "'model_type' is 'gpt2', but MixtralForCausalLM is of mixtral",
        ),
        (
            {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": "x"},
            ModelError,
            "transformers refuses it",
        ),
        (
            {
                "architectures": ["MixtralForCausalLM"],
                "model_type": "mixtral",
                "quantization_config": {"quant_method": "awq"},
            },
            ModelError,
            "quantised weights are supported of Llama",
        ),
        ({"model_type": "mixtral"}, ModelError, "'architectures' is missing"),
    ],
)
def test_refused_by_fields(
    tmp_path: Path, fields: dict[str, Any], error: type[ModelError], match: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(error, match=match):
        load_model_config(tmp_path)


def test_code_of_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    """A family that transformers has is taken from there, whatever `auto_map` says."""
    save_model("llama", tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    values["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    path.write_text(json.dumps(values))
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    LLM(tmp_path, model_impl="transformers", skip_tokenizer=True, num_blocks=8)


OPTIONS: Mapping[str, Any] = {
    "model_impl": "transformers",
    "skip_tokenizer": True,
    "num_blocks": 40,
}


def test_longrope_beyond_its_first_context(tmp_path: Path) -> None:
    save_model("phi3", tmp_path)
    LLM(tmp_path, max_model_len=128, **OPTIONS)
    with pytest.raises(UnsupportedModelError, match="set max_model_len to at most 128"):
        LLM(tmp_path, **OPTIONS)


def test_a_window_that_only_the_cache_has(tmp_path: Path) -> None:
    save_model("moshi", tmp_path)
    config = load_model_config(tmp_path)
    assert isinstance(config, GenericConfig)
    check_context(config, 20)
    with pytest.raises(UnsupportedModelError, match="set max_model_len to at most 20"):
        check_context(config, 21)
