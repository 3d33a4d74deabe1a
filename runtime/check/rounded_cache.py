"""Hugging Face's cache with keys and values rounded as a quantised KV cache rounds them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache

_LARGEST = {"int8": 127.0, "fp8": 448.0}


class RoundedCache(DynamicCache):  # type: ignore[misc]
    """What attention reads of it, the newest token's own key and value too, is rounded."""

    def __init__(self, config: Any, kv_dtype: str) -> None:
        """Take a model's config, and "int8" or "fp8"."""
        super().__init__(config=config)
        self._kv_dtype = kv_dtype

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *words: Any, **options: Any
    ) -> Any:
        """Round both, [num_seqs, num_kv_heads, num_tokens, head_dim], and pass them on."""
        key_states, value_states = (
            rounded(states, self._kv_dtype) for states in (key_states, value_states)
        )
        return super().update(key_states, value_states, *words, **options)


def rounded(x: torch.Tensor, kv_dtype: str) -> torch.Tensor:
    """The definition: of each row [..., head_dim], scale = largest magnitude / largest code.

    In float64, so that only the numbers on the verge of two codes can end on another side.
    """
    wide = x.double()
    scale = wide.abs().amax(-1, keepdim=True) / _LARGEST[kv_dtype]
    ratio = torch.where(scale > 0, wide / scale, 0.0)
    if kv_dtype == "fp8":
        return (ratio.float().to(torch.float8_e4m3fn).double() * scale).to(x.dtype)
    return (ratio.round() * scale).to(x.dtype)
