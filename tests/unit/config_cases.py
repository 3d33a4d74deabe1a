"""A config.json as Hugging Face writes it, for tests to keep or to spoil."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autotune.model_shape import ModelShape, load

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
}


def write(folder: Path, config: Any) -> Path:
    """Write `config` as the config.json of `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def read(tmp_path: Path, **changes: Any) -> ModelShape:
    """Load Llama's config with some fields changed; a change to ... removes the field."""
    config = {name: value for name, value in {**LLAMA, **changes}.items() if value is not ...}
    return load(str(write(tmp_path / "llama-3.1-8b", config)))
