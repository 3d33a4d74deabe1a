"""Operations for CPUs: own C kernels where a compiler made them, else plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from runtime.kernel_row import TORCH, KernelRow, OpsReport
from runtime.kv_cache import KVCache, LayerKV
from runtime.model_input import ModelInput
from runtime.ops.base import AttentionSpec, BlockSizeChoice, Linear
from runtime.ops.limits import StepLimits
from runtime.ops.request import OpsRequest
from runtime.ops.torch_attention import AttentionPlan, attend
from runtime.ops.torch_kv import write
from runtime.ops.torch_library import CpuKernels
from runtime.ops.torch_linear import native_dtypes, prepare_linear, uses_kernels
from runtime.ops.torch_pack import FUSED_ACTIVATIONS, CpuLinear

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class TorchOps:
    """Picks per type: kernels where there are some for it, PyTorch's operations otherwise."""

    name = "torch"
    block_size = 8
    needs_tables = True
    can_capture = False

    def __init__(self, *, use_kernels: bool = True) -> None:
        """Use C kernels, or not: for tensors of another device than the CPU."""
        self._kernels: dict[torch.dtype, CpuKernels | None] = {}
        self._use_kernels = use_kernels

    def auto_dtype(self, checkpoint: str) -> str:
        """Take the checkpoint's type where the CPU has it, else fp32."""
        return checkpoint if checkpoint in native_dtypes() else "fp32"

    def choose_block_size(self, dtype: str, kv_dtype: str, max_model_len: int) -> BlockSizeChoice:
        """Choose eight everywhere: keys are read where they lie, so the size costs no time."""
        return BlockSizeChoice(
            TorchOps.block_size, "keys are read in place: small blocks waste least"
        )

    def resolve(self, dtype: str, kv_dtype: str, block_size: int, limits: StepLimits) -> None:
        """Nothing else is to be settled."""
        self.block_size = block_size

    def start(self, cache: KVCache) -> None:
        """Nothing is to be imported."""

    def report(self) -> OpsReport:
        """Torch for everything."""
        return OpsReport(None, None, (KernelRow("everything", "all", TORCH),))

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        """Prepare x W^T + b."""
        return prepare_linear(weight, bias, self._kernels_of(torch.float32))

    def gated_linear(
        self, weight: torch.Tensor, bias: torch.Tensor | None, activation: str
    ) -> Linear:
        """Prepare activation(gate) * up."""
        kernels = self._kernels_of(torch.float32)
        if activation in FUSED_ACTIVATIONS and uses_kernels(weight, kernels):
            assert kernels is not None
            return CpuLinear(kernels, weight, bias, FUSED_ACTIVATIONS[activation])
        activate = _ACTIVATIONS[activation]
        linear = self.linear(weight, bias)

        def call(x: torch.Tensor) -> torch.Tensor:
            gate, up = linear(x).chunk(2, dim=-1)
            return activate(gate).mul_(up)

        return call

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """Norm of the last dimension, in float32."""
        kernels = self._kernels_of(x.dtype)
        if kernels is not None:
            return kernels.rms_norm(x, None, weight, eps)[0]
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        return (normed.to(weight.dtype) * weight).to(x.dtype)

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Norm of x + residual, and that sum."""
        kernels = self._kernels_of(x.dtype)
        if kernels is not None:
            return kernels.rms_norm(x, residual, weight, eps)
        total = x + residual
        return self.rms_norm(total, weight, eps), total

    def plan(self, step: ModelInput, rope_table: torch.Tensor | None) -> AttentionPlan:
        """Remember what all layers share; angles and places are looked up when first needed."""
        return AttentionPlan(step, rope_table)

    def rotate_and_write(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv: LayerKV,
        plan: AttentionPlan,
    ) -> torch.Tensor:
        """Rotate queries and keys, write keys and values to their slots."""
        assert plan.rope_table is not None, "the plan was made without a table of angles"
        kernels = self._kernels_of(query.dtype)
        if kernels is not None and (not kv.is_quantised or key.shape[2] <= kernels.most_head_dim):
            return kernels.rotate_and_write(query, key, value, kv, plan.rope_table, plan.step)
        self.write(_rotate(key, plan.angles), value, kv, plan)
        return _rotate(query, plan.angles)

    def write(
        self, key: torch.Tensor, value: torch.Tensor, kv: LayerKV, plan: AttentionPlan
    ) -> None:
        """Write keys and values, not rotated, to their slots."""
        write(key, value, kv, plan.step.slot_mapping)

    def attention(
        self, query: torch.Tensor, kv: LayerKV, plan: AttentionPlan, spec: AttentionSpec
    ) -> torch.Tensor:
        """Attend to keys where they lie; without kernels, sequence by sequence."""
        kernels = self._kernels_of(query.dtype)
        if kernels is not None and spec.head_dim <= kernels.most_head_dim:
            return kernels.attention(query, kv, plan.step, spec)
        return attend(query, kv, plan, spec)

    def _kernels_of(self, dtype: torch.dtype) -> CpuKernels | None:
        if dtype not in self._kernels:
            self._kernels[dtype] = CpuKernels.load(dtype) if self._use_kernels else None
        return self._kernels[dtype]


def make(request: OpsRequest) -> TorchOps:
    """Make the set for a device."""
    return TorchOps(use_kernels=request.device.type == "cpu")


def _rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotate pairs (i, i + rotary_dim / 2) of the leading dimensions of each head.

    Args:
        x: [num_tokens, num_heads, head_dim].
        angles: [num_tokens, 2, rotary_dim / 2], cosines and sines.
    """
    half = angles.shape[-1]
    cos, sin = angles[:, 0, None], angles[:, 1, None]  # [num_tokens, 1, rotary_dim / 2]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)
