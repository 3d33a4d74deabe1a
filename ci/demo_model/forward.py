"""The training's own forward pass: the weights of a transformers Llama, with fewer operations.

Backward passes are written out where autograd would keep, and pass over, several copies.
"""

from __future__ import annotations

from typing import Any

import torch
from demo_model.stream import IGNORED
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import embedding, scaled_dot_product_attention
from transformers import LlamaForCausalLM

_CHUNK_ROWS = 256
"""So that a chunk's logits stay in the cache between the passes over them."""


class Forward:
    """Loss of a model on batches of one row length; equal to what transformers computes."""

    def __init__(self, model: LlamaForCausalLM, row_length: int) -> None:
        config = model.config
        self._model = model
        self._head_dim: int = config.head_dim
        self._num_heads: int = config.num_attention_heads
        self._num_kv_heads: int = config.num_key_value_heads
        half = torch.arange(0, self._head_dim, 2).float() / self._head_dim  # [head_dim / 2]
        speeds = config.rope_parameters["rope_theta"] ** -half
        angles = torch.outer(torch.arange(row_length).float(), speeds)[:, None]
        self._cos = torch.cat([angles.cos(), angles.cos()], -1)  # [row_length, 1, head_dim]
        self._sin = torch.cat([-angles.sin(), angles.sin()], -1)  # [row_length, 1, head_dim]

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Sum of cross entropies in nats of int64 [rows, length] inputs against targets."""
        hidden = self._hidden(ids)  # [rows * length, hidden]
        learnt = (targets.view(-1) != IGNORED).nonzero().view(-1)
        loss: Tensor = _HeadLoss.apply(
            hidden.index_select(0, learnt), self._model.lm_head.weight, targets.view(-1)[learnt]
        )
        return loss

    def _hidden(self, ids: Tensor) -> Tensor:
        body = self._model.model
        x = embedding(ids.view(-1), body.embed_tokens.weight)  # [rows * length, hidden]
        for layer in body.layers:
            x = x + self._attend(layer.self_attn, _norm(x, layer.input_layernorm), ids.shape[0])
            mlp = layer.mlp
            both = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
            middle = _SwiGlu.apply(_norm(x, layer.post_attention_layernorm) @ both.T)
            x = x + middle @ mlp.down_proj.weight.T
        return _norm(x, body.norm)

    def _attend(self, attention: Any, x: Tensor, num_rows: int) -> Tensor:
        num_rotated = self._num_heads + self._num_kv_heads
        weights = [getattr(attention, f"{name}_proj").weight for name in "qkv"]
        qkv = (x @ torch.cat(weights).T).view(
            num_rows, -1, num_rotated + self._num_kv_heads, self._head_dim
        )
        qk = _Rope.apply(qkv[:, :, :num_rotated], self._cos, self._sin)
        mixed = scaled_dot_product_attention(
            qk[:, :, : self._num_heads].transpose(1, 2),  # [rows, heads, length, head_dim]
            qk[:, :, self._num_heads :].transpose(1, 2),
            qkv[:, :, num_rotated:].transpose(1, 2),
            is_causal=True,
            enable_gqa=True,
        )
        joined = mixed.transpose(1, 2).reshape(x.shape[0], -1)  # [rows * length, heads * head_dim]
        return joined @ attention.o_proj.weight.T


def _norm(x: Tensor, norm: Any) -> Tensor:
    normed: Tensor = _RmsNorm.apply(x, norm.weight, norm.variance_epsilon)
    return normed


class _RmsNorm(Function):
    """RMS norm over the last axis (Zhang and Sennrich, 2019)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        scale = squares.div_(x.shape[-1]).add_(epsilon).rsqrt_()  # [tokens, 1]
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, scale, weight = ctx.saved_tensors
        inner = upper * weight
        along = (inner * normed).mean(-1, keepdim=True)
        lower = torch.addcmul(inner, normed, along, value=-1).mul_(scale)
        return lower, (upper * normed).sum(0), None


class _Rope(Function):
    """Rotary positions on the halves of the last axis (Su et al., 2021)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        turned = upper.roll(upper.shape[-1] // 2, -1)
        return torch.addcmul(upper * cos, turned, sin, value=-1), None, None


class _SwiGlu(Function):
    """silu(gate) * up of [tokens, gate and up] (Shazeer, 2020)."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        gate, up = both.chunk(2, -1)
        open_share = gate.sigmoid()
        active = gate * open_share
        ctx.save_for_backward(both, open_share, active)
        return active * up

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> Tensor:
        both, open_share, active = ctx.saved_tensors
        lower = torch.empty_like(both)
        to_gate, to_up = lower.chunk(2, -1)
        torch.mul(upper, active, out=to_up)
        slope = torch.addcmul(open_share + active, active, open_share, value=-1)
        torch.mul(slope.mul_(both.chunk(2, -1)[1]), upper, out=to_gate)
        return lower


class _HeadLoss(Function):
    """Summed cross entropy of hidden [tokens, hidden] @ weight.T; no logits are kept."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        to_hidden, to_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        total = hidden.new_zeros(())
        for start in range(0, len(hidden), _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            right = targets[part, None]  # [chunk, 1]
            wrong_by = torch.log_softmax(hidden[part] @ weight.T, -1)  # [chunk, vocab]
            total -= wrong_by.gather(1, right).sum()
            wrong_by.exp_().scatter_add_(1, right, wrong_by.new_full(right.shape, -1.0))
            torch.mm(wrong_by, weight, out=to_hidden[part])
            to_weight.addmm_(wrong_by.T, hidden[part])
        ctx.save_for_backward(to_hidden, to_weight)
        return total

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor, Tensor, None]:
        to_hidden, to_weight = ctx.saved_tensors
        return to_hidden * upper, to_weight * upper, None
