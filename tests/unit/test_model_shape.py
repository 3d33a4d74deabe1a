"""Model shapes: published figures, configs as transformers writes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from config_cases import LLAMA, read, write

from autotune.errors import UnknownChoiceError
from autotune.model_shape import PRESETS, Linear, ModelShape, load


# The totals that the model cards state. Nearly all parameters are in the layers' linears, the
# embedding and (where it is not tied to the embedding) the head.
@pytest.mark.parametrize(
    ("name", "published_billions", "embeddings"),
    [
        ("llama-3.1-8b", 8.03, 2),
        ("llama-3.1-70b", 70.55, 2),
        ("mistral-7b", 7.25, 2),
        ("qwen2.5-7b", 7.62, 2),
        ("qwen3-0.6b", 0.596, 1),
        ("qwen3-8b", 8.19, 2),
        ("qwen3-32b", 32.76, 2),
        ("gemma-2-9b", 9.24, 1),
        ("phi-3-mini", 3.82, 2),
    ],
)
def test_presets_have_the_published_number_of_parameters(
    name: str, published_billions: float, embeddings: int
) -> None:
    shape = load(name)
    layer = sum(linear.n * linear.k for linear in shape.linears())
    total = shape.num_layers * layer + embeddings * shape.vocab_size * shape.hidden_size
    assert total / 1e9 == pytest.approx(published_billions, rel=0.002)


def test_every_preset_is_counted_above() -> None:
    assert len(PRESETS) == 9
    assert all(key == shape.name for key, shape in PRESETS.items())


def test_llama_8b_by_hand() -> None:
    shape = load("Llama-3.1-8B")
    assert shape is PRESETS["llama-3.1-8b"]
    assert shape.group == 4
    assert shape.softmax_scale == pytest.approx(0.08838834764831845)
    assert shape.linears() == (
        Linear("qkv", 6144, 4096),
        Linear("o", 4096, 4096),
        Linear("gate_up", 28672, 4096),
        Linear("down", 4096, 14336),
    )


def test_heads_wider_than_the_hidden_size() -> None:
    # Qwen3-0.6B: 16 heads of 128 on a hidden size of 1024.
    qkv, o, *_ = load("qwen3-0.6b").linears()
    assert (qkv.n, qkv.k) == (4096, 1024)
    assert (o.n, o.k) == (1024, 2048)


def test_gemma_and_phi_by_hand() -> None:
    gemma, phi = load("gemma-2-9b"), load("phi-3-mini")
    assert (gemma.softcap, gemma.sliding_window, gemma.activation) == (50.0, 4096, "gelu_tanh")
    assert gemma.softmax_scale == 1 / 16
    assert (gemma.group, gemma.head_dim) == (2, 256)
    assert (phi.head_dim, phi.group, phi.sliding_window) == (96, 1, 2047)
    assert load("qwen2.5-7b").group == 7
    assert load("mistral-7b").sliding_window is None


# The published configs, as the classes of transformers write them.
HUGGING_FACE: dict[str, transformers.PretrainedConfig] = {
    "llama-3.1-8b": transformers.LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=131072,
        dtype="bfloat16",
    ),
    "llama-3.1-70b": transformers.LlamaConfig(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=131072,
        dtype="bfloat16",
    ),
    "mistral-7b": transformers.MistralConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=32768,
        max_position_embeddings=32768,
        sliding_window=None,
        dtype="bfloat16",
    ),
    "qwen2.5-7b": transformers.Qwen2Config(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152064,
        max_position_embeddings=131072,
        sliding_window=131072,
        use_sliding_window=False,
        dtype="bfloat16",
    ),
    "qwen3-0.6b": transformers.Qwen3Config(
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        max_position_embeddings=40960,
        dtype="bfloat16",
    ),
    "qwen3-8b": transformers.Qwen3Config(
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        max_position_embeddings=40960,
        dtype="bfloat16",
    ),
    "qwen3-32b": transformers.Qwen3Config(
        hidden_size=5120,
        intermediate_size=25600,
        num_hidden_layers=64,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        max_position_embeddings=40960,
        dtype="bfloat16",
    ),
    "gemma-2-9b": transformers.Gemma2Config(
        hidden_size=3584,
        intermediate_size=14336,
        num_hidden_layers=42,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=256,
        vocab_size=256000,
        max_position_embeddings=8192,
        sliding_window=4096,
        attn_logit_softcapping=50.0,
        query_pre_attn_scalar=256,
        dtype="bfloat16",
    ),
    "phi-3-mini": transformers.Phi3Config(
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=32064,
        max_position_embeddings=4096,
        sliding_window=2047,
        dtype="bfloat16",
    ),
}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("use_diff", [True, False])
def test_a_config_written_by_transformers_equals_the_preset(
    name: str, use_diff: bool, tmp_path: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    HUGGING_FACE[name].to_json_file(folder / "config.json", use_diff=use_diff)
    assert load(str(folder)) == PRESETS[name]
    assert load(str(folder / "config.json")) == PRESETS[name]


def test_gpt2_names(tmp_path: Path) -> None:
    folder = tmp_path / "gpt2"
    folder.mkdir()
    transformers.GPT2Config().to_json_file(folder / "config.json")
    shape = load(str(folder))
    assert shape == ModelShape(
        name="gpt2",
        hidden_size=768,
        intermediate_size=3072,
        num_layers=12,
        num_heads=12,
        num_kv_heads=12,
        head_dim=64,
        vocab_size=50257,
        max_context_len=1024,
        activation="gelu_tanh",
        gated=False,
    )
    assert [linear.name for linear in shape.linears()] == ["qkv", "o", "up", "down"]
    assert shape.linears()[2].n == 3072


def test_gpt2_names_with_inner_size_and_one_kv_head(tmp_path: Path) -> None:
    config = transformers.GPT2Config(n_inner=1000).to_dict() | {"multi_query": True}
    shape = load(str(write(tmp_path / "starcoder", config)))
    assert (shape.intermediate_size, shape.num_kv_heads) == (1000, 1)


def test_name_of_a_file_that_is_not_called_config(tmp_path: Path) -> None:
    path = tmp_path / "my-model.json"
    path.write_text(json.dumps(LLAMA))
    assert load(str(path)).name == "my-model"


def test_a_preset_wins_over_a_folder_unless_given_as_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "qwen3-8b", LLAMA)
    monkeypatch.chdir(tmp_path)
    assert load("qwen3-8b").num_layers == 36
    assert load("./qwen3-8b").num_layers == 32


def test_nested_text_config(tmp_path: Path) -> None:
    nested = {
        "model_type": "llava",
        "dtype": "float16",
        "hidden_size": 1,
        "vision_config": {"hidden_size": 1152},
        "text_config": {**LLAMA, "torch_dtype": "float32"},
    }
    shape = load(str(write(tmp_path / "llava", nested)))
    assert (shape.hidden_size, shape.dtype) == (4096, "fp16")
    del nested["dtype"]
    assert load(str(write(tmp_path / "llava", nested))).dtype == "fp32"


def test_defaults_of_absent_fields(tmp_path: Path) -> None:
    shape = read(tmp_path, num_key_value_heads=..., torch_dtype=..., head_dim=None)
    assert (shape.num_kv_heads, shape.head_dim, shape.dtype) == (32, 128, "bf16")


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({"sliding_window": 4096}, 4096),
        ({"sliding_window": 4096, "use_sliding_window": True}, 4096),
        ({"sliding_window": 4096, "use_sliding_window": False}, None),
        ({"sliding_window": 4096, "layer_types": ["full_attention"]}, None),
        ({"sliding_window": 4096, "layer_types": ["full_attention", "sliding_attention"]}, 4096),
        ({"sliding_window": None}, None),
    ],
)
def test_sliding_window(tmp_path: Path, changes: dict[str, Any], window: int | None) -> None:
    assert read(tmp_path, **changes).sliding_window == window


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({"query_pre_attn_scalar": 144}, 1 / 12),  # Gemma-2-27B
        ({"query_pre_attn_scalar": 128}, None),  # head_dim
        ({"attention_multiplier": 0.0078125}, 0.0078125),  # Granite
    ],
)
def test_attention_scale(tmp_path: Path, changes: dict[str, Any], scale: float | None) -> None:
    assert read(tmp_path, **changes).attention_scale == pytest.approx(scale)


@pytest.mark.parametrize(
    ("changes", "activation"),
    [
        ({"hidden_act": "gelu"}, "gelu"),
        ({"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"}, "gelu_tanh"),
        ({"hidden_act": "swish"}, "silu"),
    ],
)
def test_activation(tmp_path: Path, changes: dict[str, Any], activation: str) -> None:
    assert read(tmp_path, **changes).activation == activation


@pytest.mark.parametrize(
    "name", ["llama-3.1-8", "meta-llama/Llama-3.1-8B", "", "x" * 5000, "a\0b", "/dev/null"]
)
def test_neither_preset_nor_path(name: str) -> None:
    with pytest.raises(UnknownChoiceError) as caught:
        load(name)
    message = str(caught.value)
    assert caught.value.kind == "model"
    assert set(caught.value.choices) == set(PRESETS)
    assert message.endswith("or the path of a config.json, or of a folder that has one")
    assert ("Did you mean llama-3.1-8b" in message) == ("8" in name)


def test_importing_and_loading_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from autotune.model_shape import load; load('qwen3-8b');"
        "assert not {'torch', 'transformers', 'triton', 'optuna'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
