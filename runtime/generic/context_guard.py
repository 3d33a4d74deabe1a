"""Refuses contexts so long that transformers' own results depend on how it is called.

Its "dynamic" and "longrope" rotary embeddings change the frequencies of a whole call when one
position in it is beyond the original context: a request's tokens would depend on its neighbours,
and keys in the cache would keep angles that no longer hold. And some models have a window in their
configuration that their cache cuts keys to, but their mask does not show.
"""

from __future__ import annotations

from typing import Any

from transformers import DynamicCache

from runtime.errors import UnsupportedModelError
from runtime.generic.config import GenericConfig


def check_context(config: GenericConfig, max_len: int) -> None:
    """Raise UnsupportedModelError if sequences of `max_len` tokens are that long."""
    _check_rope(config, max_len)
    text = config.hf_config.get_text_config()
    for call, layer in zip(config.calls, DynamicCache(config=text).layers, strict=False):
        kept = getattr(layer, "sliding_window", None)
        if kept is None or call.spec.window is not None or max_len <= kept:
            continue
        raise UnsupportedModelError(
            f"{config.where}: transformers' cache keeps {kept} tokens for {call.module}, whose "
            f"mask shows all, so beyond that its results depend on how it is called: set "
            f"max_model_len to at most {kept}"
        )


def _check_rope(config: GenericConfig, max_len: int) -> None:
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
