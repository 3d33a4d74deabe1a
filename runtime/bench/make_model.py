"""Folders of random models with the shapes that benchmarks are stated for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODEL_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "llama-125m": {
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
        "model_type": "llama",
        "vocab_size": 2048,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 40_960,
    },
}
"""Name -> fields of transformers' config; the second is small enough for 32,768 tokens of context
on a laptop."""


def make_model(name: str, folder: Path, seed: int = 0) -> None:
    """Save a model of shape `name` with random weights in bf16, the same for the same seed."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    fields = dict(MODEL_SHAPES[name])
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(torch.bfloat16)
    model.save_pretrained(folder)
