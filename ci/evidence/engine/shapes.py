"""Models that the engine's evidence is gathered on: shapes of transformers' configs, no weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LARGE = "llama-3.1-8b"
SMALL = "qwen3-0.6b"
REHEARSAL = "llama-2m-32k"

_TINY = {"vocab_size": 2048, "max_position_embeddings": 4096}

FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {
        **_TINY, "model_type": "llama", "hidden_size": 1024, "intermediate_size": 2048,
        "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
    },
    "qwen3": {
        **_TINY, "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 2048,
        "num_hidden_layers": 2, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "tie_word_embeddings": True,
    },
    "gemma2": {
        **_TINY, "model_type": "gemma2", "hidden_size": 1024, "intermediate_size": 2048,
        "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 256, "sliding_window": 64,
    },
    "phi3": {
        **_TINY, "model_type": "phi3", "hidden_size": 768, "intermediate_size": 2048,
        "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 8,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    },
    "mistral": {
        **_TINY, "model_type": "mistral", "hidden_size": 1024, "intermediate_size": 2048,
        "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
        "head_dim": 128, "sliding_window": 64,
    },
    "qwen2": {
        **_TINY, "model_type": "qwen2", "hidden_size": 1792, "intermediate_size": 2048,
        "num_hidden_layers": 2, "num_attention_heads": 14, "num_key_value_heads": 2,
    },
    "olmo2": {
        **_TINY, "model_type": "olmo2", "hidden_size": 1024, "intermediate_size": 2048,
        "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    },
}  # fmt: skip
"""Head sizes and query heads per KV head as in released models; the last runs over transformers'
own code. Most valuable first."""

_MAKE = """
import json, pathlib, sys
from runtime.bench.make_model import make_model
for name, shape in json.loads(sys.argv[2]).items():
    make_model(shape, pathlib.Path(sys.argv[1]) / name)
"""


def make(folder: Path, shapes: Mapping[str, Any]) -> str | None:
    """Write whole models below a folder, in a process of their own; returns what went wrong.

    Args:
        folder: to write to; each model gets a folder of its name in it.
        shapes: name -> a name of `MODEL_SHAPES`, or fields.
    """
    command = [sys.executable, "-c", _MAKE, str(folder), json.dumps(dict(shapes))]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return None if done.returncode == 0 else f"no model could be made: {done.stderr[-500:]}"
