"""Damaged model configs: every complaint names file and field, and nothing else escapes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from config_cases import LLAMA
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotune.errors import AutotuneError, UsageError
from autotune.json_fields import JsonFields
from autotune.model_shape import load


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": ...}, r"field hidden_size \(or n_embd\) is missing; add it"),
        ({"vocab_size": None}, "field vocab_size is missing"),
        ({"intermediate_size": ...}, "field intermediate_size .* is missing"),
        ({"max_position_embeddings": ...}, "field max_position_embeddings .* is missing"),
        ({"hidden_act": ...}, "field hidden_act is missing; add it as one of gelu"),
        ({"hidden_size": True}, "hidden_size=True must be a positive integer"),
        ({"hidden_size": 4096.0}, "hidden_size=4096.0 must be a positive integer"),
        ({"hidden_size": "4096"}, "hidden_size='4096' must be a positive integer"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0 must be a positive integer"),
        ({"num_hidden_layers": -32}, "num_hidden_layers=-32 must be a positive integer"),
        ({"vocab_size": 2**31}, "vocab_size=2147483648 must be a positive integer below 2"),
        ({"num_key_value_heads": 5}, "num_key_value_heads=5 must divide num_attention_heads=32"),
        ({"num_attention_heads": 24}, "num_attention_heads=24 must divide hidden_size; add head_"),
        ({"n_embd": 1024}, "hidden_size=4096 contradicts n_embd=1024; keep one"),
        ({"dtype": "float32"}, "dtype='float32' contradicts torch_dtype='bfloat16'"),
        ({"torch_dtype": "float64"}, "torch_dtype='float64' is not supported; supported: bfloat16"),
        ({"hidden_act": "relu"}, "hidden_act='relu' is not supported; supported: gelu"),
        ({"hidden_act": ["silu"]}, "hidden_act=.* is not supported"),
        ({"sliding_window": False}, "sliding_window=False must be a positive integer"),
        ({"use_sliding_window": "no"}, "use_sliding_window='no' must be true or false"),
        ({"attn_logit_softcapping": float("nan")}, "attn_logit_softcapping=nan must be a positive"),
        ({"attn_logit_softcapping": 10**400}, "attn_logit_softcapping=1000.* must be a positive"),
        ({"query_pre_attn_scalar": True}, "query_pre_attn_scalar=True must be a positive number"),
        ({"text_config": [1]}, r"text_config=\[1\] must be an object"),
        ({"text_config": {"vocab_size": 3}}, "text_config: field hidden_size .* is missing"),
        ({"num_local_experts": 8}, "num_local_experts: mixture of experts is not supported"),
        ({"kv_lora_rank": 512}, "kv_lora_rank: latent attention is not supported"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "config.json"
    config = {name: value for name, value in {**LLAMA, **changes}.items() if value is not ...}
    path.write_text(json.dumps(config))
    with pytest.raises(UsageError, match=message) as caught:
        load(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"3", b'"llama"', b"null", b"\xff\xfe\xfd", b"{} {}"),
        *(b"[" * 10**5, b'{"hidden_size": ' + b"9" * 5000 + b"}"),
    ],
)
def test_a_file_that_holds_no_object_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"config\.json: (not valid JSON|holds )"):
        load(str(path))


def test_a_weight_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(1 << 34)  # sparse
    with pytest.raises(UsageError, match="larger than 16 MiB"):
        load(str(path))


def test_a_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no config\.json in this folder"):
        load(str(tmp_path))


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.json: cannot be read: No such file"):
        JsonFields.read(tmp_path / "gone.json")


def test_aliases_that_agree_are_one_field() -> None:
    fields = JsonFields({"n_ctx": 1024, "n_positions": 1024, "n_inner": None}, "here")
    assert fields.count("n_positions", "n_ctx") == 1024
    assert fields.count("n_inner") is None
    assert fields.flag("absent", default=True)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([1, 2, 64, 128, 2**31, 10**400])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["silu", "gelu", "bfloat16", "sliding_attention"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
known_fields = st.sampled_from(
    [
        *LLAMA,
        *("head_dim", "sliding_window", "use_sliding_window", "layer_types", "multi_query"),
        *("attn_logit_softcapping", "query_pre_attn_scalar", "attention_multiplier"),
        *("n_embd", "n_head", "n_layer", "n_inner", "n_positions", "activation_function"),
        *("dtype", "hidden_activation", "num_experts", "kv_lora_rank"),
    ]
)
fuzz = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def load_or_fail_as_documented(path: Path) -> None:
    message, shape = "", None
    try:
        shape = load(str(path))
    except AutotuneError as error:
        message = str(error)
    if shape is None:
        assert str(path) in message
    else:
        assert shape.group * shape.num_kv_heads == shape.num_heads
        assert all(linear.n > 0 and linear.k > 0 for linear in shape.linears())
        assert shape.softmax_scale > 0


@fuzz
@given(changes=st.dictionaries(known_fields, json_values, max_size=4), nested=st.booleans())
def test_mutated_fields_fail_only_as_documented(
    tmp_path: Path, changes: dict[str, Any], nested: bool
) -> None:
    config: dict[str, Any] = copy.deepcopy(LLAMA) | changes
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"text_config": config} if nested else config))
    load_or_fail_as_documented(path)


@fuzz
@given(data=st.data())
def test_mutated_bytes_fail_only_as_documented(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(json.dumps(LLAMA).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = tmp_path / "config.json"
    path.write_bytes(content)
    load_or_fail_as_documented(path)
