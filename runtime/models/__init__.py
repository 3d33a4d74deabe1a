"""The model families: one row each, by the architecture name in config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Family:
    """Where a family's `build` is, and what its config.json means where it leaves a field out."""

    architecture: str
    module: str
    """Has `build(config, weights, ops) -> Decoder`; imported when a model of it is loaded."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values of absent fields, as in the family's Hugging Face config class."""
    has_wide_norms: bool = False
    """Whether the norms between layers have their weights in float32, as `1 + weight` is."""
    has_head_norms: bool = False
    """Whether each head's queries and keys are normed."""


_LLAMA = {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048}

_ROWS = (
    Family("LlamaForCausalLM", "runtime.models.llama", _LLAMA),
    Family(
        "MistralForCausalLM",
        "runtime.models.mistral",
        {
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 131_072,
            "sliding_window": 4096,
        },
    ),
    Family(
        "Qwen2ForCausalLM",
        "runtime.models.qwen2",
        {
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 32_768,
            "use_sliding_window": False,
            "max_window_layers": 28,
        },
    ),
    Family(
        "Qwen3ForCausalLM",
        "runtime.models.qwen3",
        {
            "head_dim": 128,
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 32_768,
            "use_sliding_window": False,
            "max_window_layers": 28,
        },
        has_head_norms=True,
    ),
    Family(
        "Phi3ForCausalLM",
        "runtime.models.phi3",
        {
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
        },
    ),
    Family(
        "Gemma2ForCausalLM",
        "runtime.models.gemma2",
        {
            "head_dim": 256,
            "num_key_value_heads": 4,
            "hidden_activation": "gelu_pytorch_tanh",
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "window_every": 2,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        has_wide_norms=True,
    ),
)

FAMILIES: Mapping[str, Family] = {row.architecture: row for row in _ROWS}
"""Families by architecture name."""
