"""What a model asks of an operation set: the protocol between layers and kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from autotune.registry import QuantisedLayer
from runtime.kernel_row import OpsReport
from runtime.kv_cache import KVCache, LayerKV
from runtime.model_input import ModelInput
from runtime.ops.limits import StepLimits


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """What is fixed about one layer's attention."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int | None = None
    """Tokens that a token looks back on, itself included; None for all."""
    softcap: float | None = None

    @property
    def group(self) -> int:
        """Query heads that share a KV head."""
        return self.num_heads // self.num_kv_heads

    @property
    def words(self) -> str:
        """For people: heads, and what is out of the ordinary."""
        parts = [f"{self.num_heads}/{self.num_kv_heads} heads of {self.head_dim}"]
        if self.window is not None:
            parts.append(f"window {self.window}")
        if self.softcap is not None:
            parts.append(f"cap {self.softcap:g}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class BlockSizeChoice:
    """Tokens per KV block, and why."""

    size: int
    reason: str


class Linear(Protocol):
    """A linear layer with its weights prepared: [num_tokens, k] -> [num_tokens, n]."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        ...


class OperationSet(Protocol):
    """Operations that models are made of; each set runs on one kind of device."""

    name: str
    block_size: int
    """Tokens per KV block, as resolved last."""
    needs_tables: bool
    """Whether `plan` reads `ModelInput.tables`."""

    def auto_dtype(self, checkpoint: str) -> str:
        """Return the type to compute a checkpoint of this type in, if the caller has no wish."""
        ...

    def choose_block_size(self, dtype: str, kv_dtype: str, max_model_len: int) -> BlockSizeChoice:
        """Choose where the caller has no wish; `kv_dtype` as in `resolve`."""
        ...

    def resolve(self, dtype: str, kv_dtype: str, block_size: int, limits: StepLimits) -> None:
        """Settle what runs the model's operations; called before weights are loaded.

        `kv_dtype` is that of the KV cache: "auto" for `dtype`, "int8" or "fp8". Engines that share
        a model call it once each; both types and max_model_len are then the same.
        """
        ...

    def start(self, cache: KVCache) -> None:
        """Import kernels and run each once, so that no step waits for a compiler."""
        ...

    @property
    def can_capture(self) -> bool:
        """Whether a step of decodes is free of host syncs, and may become a CUDA graph."""
        ...

    def report(self) -> OpsReport:
        """Say what runs the operations, once they are resolved."""
        ...

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        """Prepare x W^T + b; weight [n, k], bias [n]. The set owns both from here on."""
        ...

    def gated_linear(
        self, weight: torch.Tensor, bias: torch.Tensor | None, activation: str
    ) -> Linear:
        """Prepare activation(gate) * up, where x W^T + b is [gate, up]; weight [2 n, k]."""
        ...

    def quantised_linear(
        self, layer: QuantisedLayer, bias: torch.Tensor | None, activation: str | None
    ) -> Linear:
        """Prepare x W^T + b of quantised weights [n, k], or the gated product of [2 n, k]."""
        ...

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """Norm of the last dimension; the product with `weight` is taken in its type."""
        ...

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Norm of x + residual, and that sum."""
        ...

    def plan(self, step: ModelInput, rope_table: torch.Tensor | None) -> Any:
        """Prepare what all layers share in one step; only this set looks into it.

        Without a table, `rotate_and_write` must not be called with the plan.

        A set for GPUs works with tensors of the device alone here, and asks for none of their
        values: a step of decodes can then be captured as a CUDA graph.
        """
        ...

    def rotate_and_write(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, kv: LayerKV, plan: Any
    ) -> torch.Tensor:
        """Rotate queries and keys, write keys and values to their slots; returns the queries.

        Into a quantised cache go their codes and scales, as `kv_codes.quantise` makes them.
        query is [num_tokens, num_heads, head_dim], key and value have num_kv_heads.
        """
        ...

    def write(self, key: torch.Tensor, value: torch.Tensor, kv: LayerKV, plan: Any) -> None:
        """Write keys and values, not rotated, to their slots.

        Both are [num_tokens, num_kv_heads, head_dim]; their strides may be any.
        """
        ...

    def attention(
        self, query: torch.Tensor, kv: LayerKV, plan: Any, spec: AttentionSpec
    ) -> torch.Tensor:
        """Attend to each sequence's blocks, causally: [num_tokens, num_heads * head_dim]."""
        ...
