"""config.json is read by type, and what cannot be served is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import CONFIGS, LONGROPE
from transformers import AutoConfig, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from runtime.errors import ConfigFieldError, ModelFolderError, UnknownArchitectureError
from runtime.model_config import ModelConfig, load_model_config
from runtime.rope import build_rope_table
from runtime.weight_format import WeightFormat

MINIMAL: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}


def test_absent_fields_get_the_family_defaults() -> None:
    config = ModelConfig.from_hf(MINIMAL)
    hf = LlamaConfig()
    assert (config.head_dim, config.num_kv_heads) == (16, 4)
    assert config.norm_eps == hf.rms_norm_eps
    assert config.max_position == hf.max_position_embeddings
    assert config.windows == (None,) * 4
    assert config.attention_scale == 0.25
    assert config.eos_token_ids == frozenset()


@pytest.mark.parametrize(
    ("architecture", "model_type"),
    [
        ("LlamaForCausalLM", "llama"),
        ("MistralForCausalLM", "mistral"),
        ("Qwen2ForCausalLM", "qwen2"),
        ("Qwen3ForCausalLM", "qwen3"),
        ("Phi3ForCausalLM", "phi3"),
        ("Gemma2ForCausalLM", "gemma2"),
    ],
)
def test_defaults_are_those_of_hugging_face(architecture: str, model_type: str) -> None:
    hf = AutoConfig.for_model(
        model_type, **{n: v for n, v in MINIMAL.items() if n != "architectures"}
    )
    fields = dict(MINIMAL, architectures=[architecture], num_key_value_heads=2)
    config = ModelConfig.from_hf(fields)
    assert config.norm_eps == hf.rms_norm_eps
    assert config.max_position == hf.max_position_embeddings
    assert config.head_dim == (getattr(hf, "head_dim", None) or 16)
    assert config.tie_word_embeddings == hf.tie_word_embeddings
    assert config.attention_softcap == getattr(hf, "attn_logit_softcapping", None)
    assert config.logit_softcap == getattr(hf, "final_logit_softcapping", None)
    window = getattr(hf, "sliding_window", None)
    types = getattr(hf, "layer_types", None) or ["sliding_attention"] * 4
    assert config.windows == tuple(window if "sliding" in kind else None for kind in types)
    assert config.rope.theta == hf.rope_parameters["rope_theta"]


def test_windows_by_layer() -> None:
    qwen = dict(MINIMAL, architectures=["Qwen2ForCausalLM"], sliding_window=7)
    assert ModelConfig.from_hf(qwen).windows == (None,) * 4, "use_sliding_window is off"
    on = dict(qwen, use_sliding_window=True, max_window_layers=3)
    assert ModelConfig.from_hf(on).windows == (None, None, None, 7)
    mistral = dict(MINIMAL, architectures=["MistralForCausalLM"], sliding_window=None)
    assert ModelConfig.from_hf(mistral | {"num_key_value_heads": 2}).windows == (None,) * 4
    types = ["full_attention", "sliding_attention"] * 2
    listed = dict(MINIMAL, sliding_window=7, layer_types=types)
    assert ModelConfig.from_hf(listed).windows == (None, 7, None, 7)


def test_older_field_names() -> None:
    scaling = {"type": "linear", "factor": 2.0}
    config = ModelConfig.from_hf(
        dict(MINIMAL, rope_theta=5e5, rope_scaling=scaling, torch_dtype="bfloat16")
    )
    assert (config.rope.kind, config.rope.theta, config.rope.factor) == ("linear", 5e5, 2.0)
    assert config.dtype == "bf16"


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "GEMM"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (GPTQ, WeightFormat("gptq", 4, 128, False)),
        (
            GPTQ | {"bits": 8, "group_size": -1, "sym": False, "checkpoint_format": "gptq_v2"},
            WeightFormat("gptq", 8, 0, True, "gptq_v2"),
        ),
        (AWQ, WeightFormat("awq", 4, 128, True)),
        (
            {"quant_method": "awq", "w_bit": 4, "q_group_size": 64},
            WeightFormat("awq", 4, 64, True),
        ),
        (None, None),
    ],
    ids=["gptq", "gptq-v2", "awq", "awq-own-names", "none"],
)
def test_weight_formats(fields: dict[str, Any] | None, expected: WeightFormat | None) -> None:
    assert ModelConfig.from_hf({**MINIMAL, "quantization_config": fields}).linears == expected


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"hidden_size": None}, "'hidden_size' is missing"),
        ({"hidden_size": "64"}, "must be a whole number"),
        ({"num_hidden_layers": 0}, "at least 1"),
        ({"num_key_value_heads": 3}, "not a part of 4"),
        ({"hidden_size": 66}, "head_dim"),
        ({"hidden_act": "relu"}, "supported are silu"),
        ({"dtype": "int8"}, "supported are float32"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "supported are gptq, awq"),
        ({"quantization_config": {"bits": 4}}, "'quant_method' is missing"),
        ({"quantization_config": GPTQ | {"bits": 3}}, "supported of gptq are 4 and 8"),
        ({"quantization_config": GPTQ | {"bits": None}}, "'bits' is missing"),
        ({"quantization_config": GPTQ | {"group_size": 0}}, "at least 1"),
        ({"quantization_config": GPTQ | {"checkpoint_format": "marlin"}}, "are gptq, gptq_v2"),
        ({"quantization_config": GPTQ | {"is_marlin_format": True}}, "is 'marlin'"),
        ({"quantization_config": GPTQ | {"dynamic": {"-:mlp": {}}}}, "one format"),
        ({"quantization_config": AWQ | {"bits": 8}}, "supported of awq is 4"),
        ({"quantization_config": AWQ | {"version": "gemv"}}, "supported is gemm"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2}}, "one of default"),
        ({"rope_parameters": {"full_attention": {}, "sliding_attention": {}}}, "by layer type"),
        ({"rope_parameters": LONGROPE | {"long_factor": [1.0]}}, "list of 4 numbers"),
        ({"rope_parameters": "yes"}, "must be an object"),
        ({"layer_types": ["chunked_attention"] * 4, "sliding_window": 4}, "chunked_attention"),
        ({"layer_types": ["full_attention"], "sliding_window": 4}, "list of 4"),
        ({"attention_bias": 1}, "true or false"),
        ({"rms_norm_eps": -1.0}, "above 0"),
        ({"eos_token_id": [1, "2"]}, "token id"),
        ({"architectures": []}, "'architectures' is missing"),
    ],
)
def test_wrong_fields(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigFieldError, match=match):
        ModelConfig.from_hf({**MINIMAL, **change})


def test_unknown_architecture_lists_the_known_ones() -> None:
    with pytest.raises(UnknownArchitectureError, match=r"Did you mean Qwen3ForCausalLM.*Llama"):
        ModelConfig.from_hf(dict(MINIMAL, architectures=["Qwen3MoeForCausalLM"]))


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="no such folder"):
        load_model_config(tmp_path / "none")
    with pytest.raises(ModelFolderError, match=r"no config\.json"):
        load_model_config(tmp_path)
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ModelFolderError, match=r"model\.gguf is GGUF"):
        load_model_config(tmp_path)
    path = tmp_path / "config.json"
    for text, match in (("{", "not valid JSON"), ("[1]", "not a JSON object")):
        path.write_text(text)
        with pytest.raises(ModelFolderError, match=match):
            load_model_config(tmp_path)
    path.write_text(json.dumps(dict(MINIMAL, eos_token_id=5)))
    assert load_model_config(tmp_path).eos_token_ids == {5}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [6, 7]}')
    assert load_model_config(tmp_path).eos_token_ids == {6, 7}


ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 3.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 512},
    "yarn-mscale": {
        "factor": 40.0,
        "original_max_position_embeddings": 512,
        "mscale": 0.7,
        "mscale_all_dim": 1.3,
        "beta_fast": 20.0,
        "truncate": False,
    },
    "longrope": {
        "factor": 4.0,
        "original_max_position_embeddings": 512,
        "short_factor": [1.0 + i / 10 for i in range(32)],
        "long_factor": [2.0 + i for i in range(32)],
    },
}


@pytest.mark.parametrize("name", ROPES)
@pytest.mark.parametrize("max_len", [512, 2048])
def test_angles_are_those_of_hugging_face(name: str, max_len: int) -> None:
    parameters = {"rope_type": name.split("-")[0], "rope_theta": 1e4, **ROPES[name]}
    sizes = {"hidden_size": 256, "max_position_embeddings": 2048}
    hf = LlamaConfig(**{**MINIMAL, **sizes}, rope_parameters=dict(parameters))
    kind = parameters["rope_type"]
    if kind == "default":
        frequencies, scale = 1.0 / (1e4 ** (torch.arange(0, 64, 2) / 64)), 1.0
    else:
        frequencies, scale = ROPE_INIT_FUNCTIONS[kind](hf, "cpu", seq_len=max_len)
    config = ModelConfig.from_hf({**MINIMAL, **sizes, "rope_parameters": parameters})
    table = build_rope_table(config.rope, max_len, torch.float32, torch.device("cpu"))
    angles = torch.arange(max_len)[:, None].float() * frequencies
    torch.testing.assert_close(table[:, 0], angles.cos() * scale, atol=2e-4, rtol=0)
    torch.testing.assert_close(table[:, 1], angles.sin() * scale, atol=2e-4, rtol=0)


def test_every_family_has_a_case() -> None:
    from runtime.models import FAMILIES

    tested = {fields["model_type"] for fields in CONFIGS.values()}
    known = {row.module.rpartition(".")[2] for row in FAMILIES.values()}
    assert known == tested
