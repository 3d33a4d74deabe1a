"""Refuses rotary embeddings whose angles depend on the longest sequence of a step.

transformers' "dynamic" and "longrope" methods change the frequencies of a whole call when one
position in it is beyond the original context: then a request's tokens would depend on its
neighbours, and keys in the cache would keep angles that no longer hold.
"""

from __future__ import annotations

from typing import Any

from runtime.errors import UnsupportedModelError
from runtime.generic.config import GenericConfig


def check_rope(config: GenericConfig, max_len: int) -> None:
    """Raise UnsupportedModelError if sequences of `max_len` tokens reach such a change."""
    text = config.hf_config.get_text_config()
    parameters: dict[str, Any] = getattr(text, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    for rope in [parameters, *nested]:
        kind = str(rope.get("rope_type", "default"))
        if "dynamic" not in kind and kind != "longrope":
            continue
        original = rope.get("original_max_position_embeddings") or config.max_position
        if max_len > original:
            raise UnsupportedModelError(
                f"{config.where}: {kind} rotary embeddings change beyond {original} tokens for all "
                f"sequences of a step at once: set max_model_len to at most {original}"
            )
