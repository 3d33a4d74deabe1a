"""Gemma 2 (Riviere et al., 2024): norms on both sides, soft caps, alternating windows."""

from __future__ import annotations

from typing import Any

import torch

from runtime.kv_cache import LayerKV
from runtime.layers.attention import Attention
from runtime.layers.mlp import GatedMlp
from runtime.layers.norm import RMSNorm
from runtime.model_config import ModelConfig
from runtime.models.decoder import Decoder
from runtime.ops.base import OperationSet
from runtime.weights import Weights

_NORM_OFFSET = 1.0
"""Checkpoints store the norms' weights as their distance from one."""


class Gemma2Layer:
    """Attention and MLP, each between two norms."""

    def __init__(
        self, config: ModelConfig, index: int, weights: Weights, ops: OperationSet
    ) -> None:
        def norm(name: str) -> RMSNorm:
            size, eps = config.hidden_size, config.norm_eps
            return RMSNorm(weights.scope(name), size, eps, ops, _NORM_OFFSET)

        bias = config.attention_bias
        self._attention = Attention(
            config, index, weights.scope("self_attn"), ops, qkv_bias=bias, out_bias=bias
        )
        self._mlp = GatedMlp(config, weights.scope("mlp"), ops)
        self._before_attention = norm("input_layernorm")
        self._after_attention = norm("post_attention_layernorm")
        self._before_mlp = norm("pre_feedforward_layernorm")
        self._after_mlp = norm("post_feedforward_layernorm")

    def __call__(
        self, x: torch.Tensor, residual: torch.Tensor | None, kv: LayerKV, plan: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x, residual = self._before_attention.add(x, residual)
        x = self._after_attention(self._attention(x, kv, plan))
        x, residual = self._before_mlp.add(x, residual)
        return self._after_mlp(self._mlp(x)), residual


def build(config: ModelConfig, weights: Weights, ops: OperationSet, max_len: int) -> Decoder:
    """Put the model together from its checkpoint."""

    def layer(index: int, scope: Weights) -> Gemma2Layer:
        return Gemma2Layer(config, index, scope, ops)

    return Decoder(
        config,
        weights,
        ops,
        layer,
        max_len=max_len,
        embedding_scale=config.hidden_size**0.5,
        norm_offset=_NORM_OFFSET,
    )
