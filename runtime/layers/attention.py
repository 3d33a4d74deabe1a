"""Self-attention over paged keys and values, with packed projections."""

from __future__ import annotations

from typing import Any

import torch

from runtime.kv_cache import LayerKV
from runtime.layers.linear import make_linear
from runtime.layers.norm import RMSNorm
from runtime.model_config import ModelConfig
from runtime.ops.base import AttentionSpec, OperationSet
from runtime.weights import Weights


class Attention:
    """Grouped-query attention: packed qkv, rotation with cache write, attention, output."""

    def __init__(
        self,
        config: ModelConfig,
        index: int,
        weights: Weights,
        ops: OperationSet,
        *,
        qkv_bias: bool = False,
        out_bias: bool = False,
        qk_norm: bool = False,
    ) -> None:
        self.spec = AttentionSpec(
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            scale=config.attention_scale,
            window=config.windows[index],
            softcap=config.attention_softcap,
        )
        self._ops = ops
        self._split = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
        width = config.num_heads * config.head_dim
        rows = [heads * config.head_dim for heads in self._split]
        qkv = weights.linear("qkv_proj", rows, config.hidden_size, bias=qkv_bias)
        out = weights.linear("o_proj", (config.hidden_size,), width, bias=out_bias)
        self._qkv = make_linear(ops, *qkv)
        self._out = make_linear(ops, *out)
        self._query_norm: RMSNorm | None = None
        self._key_norm: RMSNorm | None = None
        if qk_norm:
            size, eps = config.head_dim, config.norm_eps
            self._query_norm = RMSNorm(weights.scope("q_norm"), size, eps, ops)
            self._key_norm = RMSNorm(weights.scope("k_norm"), size, eps, ops)

    def __call__(self, x: torch.Tensor, kv: LayerKV, plan: Any) -> torch.Tensor:
        heads = self._qkv(x).unflatten(1, (-1, self.spec.head_dim))
        query, key, value = heads.split(self._split, dim=1)  # [num_tokens, heads, head_dim]
        if self._query_norm is not None and self._key_norm is not None:
            query, key = self._query_norm(query), self._key_norm(key)
        query = self._ops.rotate_and_write(query, key, value, kv, plan)
        return self._out(self._ops.attention(query, kv, plan, self.spec))
