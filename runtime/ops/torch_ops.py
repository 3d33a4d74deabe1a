"""Operations for CPUs: own C kernels where a compiler made them, else plain PyTorch."""

from __future__ import annotations

import torch

from autotune.registry import QuantisedLayer
from runtime.activation import gated
from runtime.errors import KernelError
from runtime.kernel_row import TORCH, KernelRow, OpsReport
from runtime.kv_cache import KVCache, LayerKV
from runtime.model_input import ModelInput
from runtime.ops.base import AttentionSpec, BlockSizeChoice, Linear
from runtime.ops.limits import StepLimits
from runtime.ops.request import Demands, OpsRequest
from runtime.ops.torch_attention import AttentionPlan, attend
from runtime.ops.torch_kv import write
from runtime.ops.torch_library import CpuKernels
from runtime.ops.torch_linear import native_dtypes, prepare_linear, uses_kernels
from runtime.ops.torch_pack import FUSED_ACTIVATIONS, CpuLinear
from runtime.ops.torch_quantised import QuantisedCpuLinear, dense_weight

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchOps:
    """Picks per type: kernels where there are some for it, PyTorch's operations otherwise."""

    name = "torch"
    block_size = 8
    needs_tables = True
    can_capture = False

    def __init__(
        self, *, use_kernels: bool = True, deterministic_for: Demands | None = None
    ) -> None:
        """Set up.

        Args:
            use_kernels: use C kernels; not for tensors of another device than the CPU.
            deterministic_for: a model to compute by C kernels only, which then sum a row in one
                order whatever the batch; None for what is fastest.
        """
        self._deterministic_for = deterministic_for
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
        """Nothing else is to be settled.

        Raises:
            KernelError: sums are to be in one order, and some are PyTorch's.
        """
        self.block_size = block_size
        demands = self._deterministic_for
        if demands is None:
            return
        kernels = [self._kernels_of(_DTYPES[dtype]), self._kernels_of(torch.float32)]
        if None in kernels:
            raise KernelError(
                f"--deterministic needs the C kernels for {dtype}, which could not be built here: "
                "sums of PyTorch's operations depend on the batch"
            )
        widest = max(spec.head_dim for spec in demands.attention)
        if any(one is not None and widest > one.most_head_dim for one in kernels):
            raise KernelError(
                f"--deterministic: heads of {widest} are PyTorch's, whose sums depend on the batch"
            )

    def start(self, cache: KVCache) -> None:
        """Nothing is to be imported."""

    def report(self) -> OpsReport:
        """Torch for everything."""
        return OpsReport(None, None, (KernelRow("everything", "all", TORCH),))

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        """Prepare x W^T + b."""
        kernels = self._kernels_of(torch.float32)
        if self._deterministic_for is not None:
            assert kernels is not None, "resolve() comes first"
            return CpuLinear(kernels, weight, bias)
        return prepare_linear(weight, bias, kernels)

    def gated_linear(
        self, weight: torch.Tensor, bias: torch.Tensor | None, activation: str
    ) -> Linear:
        """Prepare activation(gate) * up."""
        kernels = self._kernels_of(torch.float32)
        is_ours = self._deterministic_for is not None or uses_kernels(weight, kernels)
        if activation in FUSED_ACTIVATIONS and is_ours:
            assert kernels is not None
            return CpuLinear(kernels, weight, bias, FUSED_ACTIVATIONS[activation])
        return gated(self.linear(weight, bias), activation)

    def quantised_linear(
        self, layer: QuantisedLayer, bias: torch.Tensor | None, activation: str | None
    ) -> Linear:
        """Prepare x W^T + b over levels; without kernels, over the numbers they stand for."""
        kernels = self._kernels_of(torch.float32)
        if kernels is None:
            weight = dense_weight(layer)
            if activation is None:
                return self.linear(weight, bias)
            return self.gated_linear(weight, bias, activation)
        if activation is None:
            return QuantisedCpuLinear(kernels, layer, bias)
        if activation in FUSED_ACTIVATIONS:
            return QuantisedCpuLinear(kernels, layer, bias, FUSED_ACTIVATIONS[activation])
        return gated(QuantisedCpuLinear(kernels, layer, bias), activation)

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
            one_order = self._deterministic_for is not None
            return kernels.attention(query, kv, plan.step, spec, one_order=one_order)
        return attend(query, kv, plan, spec)

    def _kernels_of(self, dtype: torch.dtype) -> CpuKernels | None:
        if dtype not in self._kernels:
            self._kernels[dtype] = CpuKernels.load(dtype) if self._use_kernels else None
        return self._kernels[dtype]


def make(request: OpsRequest) -> TorchOps:
    """Make the set for a device."""
    return TorchOps(
        use_kernels=request.device.type == "cpu",
        deterministic_for=request.demands if request.deterministic else None,
    )


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
