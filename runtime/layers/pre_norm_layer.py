"""The usual decoder layer: a norm before attention, a norm before the MLP, residuals around."""

from __future__ import annotations

from typing import Any

import torch

from runtime.kv_cache import LayerKV
from runtime.layers.attention import Attention
from runtime.layers.mlp import GatedMlp
from runtime.layers.norm import RMSNorm
from runtime.model_config import ModelConfig
from runtime.ops.base import OperationSet
from runtime.weights import Weights


class PreNormLayer:
    """Llama's layer; the sum with the residual is left to the next norm."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        ops: OperationSet,
        attention: Attention,
        mlp: GatedMlp,
    ) -> None:
        size, eps = config.hidden_size, config.norm_eps
        self._attention = attention
        self._mlp = mlp
        self._attention_norm = RMSNorm(weights.scope("input_layernorm"), size, eps, ops)
        self._mlp_norm = RMSNorm(weights.scope("post_attention_layernorm"), size, eps, ops)

    def __call__(
        self, x: torch.Tensor, residual: torch.Tensor | None, kv: LayerKV, plan: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x, residual = self._attention_norm.add(x, residual)
        x = self._attention(x, kv, plan)
        x, residual = self._mlp_norm.add(x, residual)
        return self._mlp(x), residual
