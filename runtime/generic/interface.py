"""Our names in transformers' attention and mask interfaces, and what they lead to.

Attention calls carry no handle on the engine, and not every model passes keyword arguments down to
them; so each attention module of a model has its own handler, as an attribute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

SERVING = "pagetune"
"""Attention implementation while serving; it has no masks, so transformers makes none."""
PROBING = "pagetune_probe"
"""Attention implementation while probing; masks are stand-ins that know their rule."""

Rule = Callable[[int, int, torch.Tensor, torch.Tensor], torch.Tensor]
"""(batch, head, query positions, key positions) -> where the query sees the key."""
Handler = Callable[..., tuple[torch.Tensor, None]]
"""(module, query, key, value, attention_mask, **options), as attention functions of transformers;
query is [1, num_heads, num_tokens, key_dim]; returns [1, num_tokens, num_heads, value_dim]."""

_HANDLER = "pagetune_handler"
_RULE = "pagetune_rule"


def register() -> None:
    """Make our names known to transformers; again is harmless."""
    AttentionInterface.register(SERVING, _dispatch)
    AttentionInterface.register(PROBING, _dispatch)
    AttentionMaskInterface.register(PROBING, _stand_in)


def set_handler(module: torch.nn.Module, handler: Handler) -> None:
    """Have this module's attention calls answered by `handler`."""
    setattr(module, _HANDLER, handler)


def rule_of(mask: torch.Tensor | None) -> Rule | None:
    """Rule of a mask that came unchanged from transformers' mask functions, else None."""
    rule: Rule | None = getattr(mask, _RULE, None)
    return rule


def _dispatch(
    module: torch.nn.Module, *inputs: torch.Tensor | None, **options: Any
) -> tuple[torch.Tensor, None]:
    handler: Handler = getattr(module, _HANDLER)
    return handler(module, *inputs, **options)


def _stand_in(
    q_length: int, kv_length: int, mask_function: Rule, device: Any, **options: Any
) -> torch.Tensor:
    mask = torch.ones((1, 1, q_length, kv_length), dtype=torch.bool, device=device)
    setattr(mask, _RULE, mask_function)
    return mask
