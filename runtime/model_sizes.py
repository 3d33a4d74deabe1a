"""What the engine must know of any model, whichever code computes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from runtime.config_fields import ConfigFields

_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """Sizes of a decoder-only model and of its KV cache."""

    impl: ClassVar[str] = "native"
    """Whose code computes it: "native" or "transformers"."""

    architecture: str
    vocab_size: int
    num_layers: int
    """Layers that have keys and values."""
    num_kv_heads: int
    head_dim: int
    """Of keys and values in the cache."""
    max_position: int
    """Most tokens of prompt and output together."""
    dtype: str
    """Of the checkpoint: "fp32", "bf16" or "fp16"."""
    eos_token_ids: frozenset[int]


def read_dtype(fields: ConfigFields) -> str:
    """Type that a config.json says its checkpoint is saved in.

    Raises:
        ConfigFieldError: it is none that is supported.
    """
    field = "dtype" if "dtype" in fields.values else "torch_dtype"
    name = fields.text(field, "float32")
    if name not in _DTYPES:
        raise fields.error(field, f"is {name!r}; supported are {', '.join(_DTYPES)}")
    return _DTYPES[name]
