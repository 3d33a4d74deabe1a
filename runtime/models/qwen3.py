"""Qwen3 (Yang et al., 2025): Llama with a norm on each head's queries and keys."""

from __future__ import annotations

from runtime.layers.attention import Attention
from runtime.layers.mlp import GatedMlp
from runtime.layers.pre_norm_layer import PreNormLayer
from runtime.model_config import ModelConfig
from runtime.models.decoder import Decoder
from runtime.ops.base import OperationSet
from runtime.weights import Weights


def build(config: ModelConfig, weights: Weights, ops: OperationSet, max_len: int) -> Decoder:
    """Put the model together from its checkpoint."""

    def layer(index: int, scope: Weights) -> PreNormLayer:
        bias = config.attention_bias
        attention = Attention(
            config, index, scope.scope("self_attn"), ops, qkv_bias=bias, out_bias=bias, qk_norm=True
        )
        return PreNormLayer(
            config, scope, ops, attention, GatedMlp(config, scope.scope("mlp"), ops)
        )

    return Decoder(config, weights, ops, layer, max_len=max_len)
