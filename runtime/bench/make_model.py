"""Folders of random models with the shapes that benchmarks are stated for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODEL_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "llama-125m": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 32_000,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "max_position_embeddings": 4096,
    },
    "llama-2m-32k": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 2048,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 40_960,
    },
    "llama-3.1-8b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
    },
    "qwen3-0.6b": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40_960,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    },
}
"""Name -> fields of transformers' config; the second is small enough for 32,768 tokens of context
on a laptop, the last two are for GPUs."""


def make_model(
    shape: str | Mapping[str, Any], folder: Path, seed: int = 0, *, is_dummy: bool = False
) -> None:
    """Save a model with random weights in bf16, the same for the same seed.

    Args:
        shape: a name of `MODEL_SHAPES`, or such fields.
        folder: to write.
        seed: of the weights.
        is_dummy: write config.json alone, for `--load-format dummy`; imports nothing.
    """
    fields = dict(MODEL_SHAPES[shape] if isinstance(shape, str) else shape)
    if is_dummy:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**fields, "dtype": "bfloat16"}, indent=1)
        (folder / "config.json").write_text(f"{text}\n", encoding="utf-8")
        return
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(torch.bfloat16)
    model.save_pretrained(folder)
