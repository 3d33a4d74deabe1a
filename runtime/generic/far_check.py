"""Does all of a model but its attention treat each token by itself, at the position we give it?

With attention replaced by something that mixes no tokens, the last hidden states of a few tokens
at the far end of the context must come out the same in any order. The reference runs them in
order behind a cache that claims to hold all that is before, so that code which counts positions
in its own way, or changes with them only beyond thousands, is seen to do so.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache

from runtime.generic.comparison import compare_rows, refusing
from runtime.generic.config import GenericConfig
from runtime.generic.interface import set_handler

_MOST_TOKENS = 8


class _FarCache(DynamicCache):  # type: ignore[misc]
    """Says that it holds `length` tokens, and keeps none."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length

    def get_seq_length(self, *_: Any, **__: Any) -> int:
        return self._length

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return key_states, value_states


def check_far_positions(
    config: GenericConfig, hf_model: Any, dtype: torch.dtype, device: torch.device, max_len: int
) -> None:
    """Compare the two; the model's attention handlers are to be set anew afterwards.

    Args:
        config: of the model.
        hf_model: with its weights.
        dtype: that it computes in.
        device: that it is on.
        max_len: most tokens of a sequence.

    Raises:
        UnsupportedModelError: they differ, or the code does not run.
    """
    for call in config.calls:
        set_handler(hf_model.get_submodule(call.module), _attend_to_self)
    body = hf_model.get_submodule(config.body)
    count = min(_MOST_TOKENS, max_len)
    start = max_len - count
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (1, count), generator=generator).to(device)
    order = torch.randperm(count, generator=generator).to(device)
    positions = torch.arange(start, max_len, device=device)[None]
    with refusing(config), torch.inference_mode():
        cache = _FarCache(start)
        expected = body(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state[0]
        shuffled = body(input_ids=ids[:, order], position_ids=positions[:, order], use_cache=False)
        found = shuffled.last_hidden_state[0]  # [count, hidden_size]
        compare_rows(
            config,
            found,
            expected[order],
            dtype,
            f"at positions {start} to {max_len - 1}, in another order,",
        )


def _attend_to_self(
    module: torch.nn.Module,
    query: torch.Tensor,  # [1, num_heads, num_tokens, key_dim]
    key: torch.Tensor,  # [1, num_kv_heads, num_tokens, key_dim]
    value: torch.Tensor,  # [1, num_kv_heads, num_tokens, value_dim]
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return values that depend on the token's own query and key: a stand-in without neighbours."""
    group = query.shape[1] // key.shape[1]
    match = torch.tanh((query * key.repeat_interleave(group, dim=1)).mean(dim=-1, keepdim=True))
    out = value.repeat_interleave(group, dim=1) * (1 + match)
    return out.transpose(1, 2).contiguous(), None
