"""Operations on GPUs: Triton kernels for all but plain products, which are the vendor's."""

from __future__ import annotations

import torch

from autotune.registry import QuantisedLayer, TunedKernels
from runtime import interpreter
from runtime.activation import gated
from runtime.block_size import choose_block_size
from runtime.errors import DeviceError
from runtime.gpu import FoundGpu, find_gpu, named_gpu
from runtime.kernel_row import TORCH, KernelRow, OpsReport
from runtime.kernel_set import MLP, Fallback, KernelSet, Served
from runtime.kernel_table import KernelTable
from runtime.kv_cache import KVCache, LayerKV
from runtime.model_input import ModelInput
from runtime.ops.base import AttentionSpec, BlockSizeChoice, Linear
from runtime.ops.limits import StepLimits
from runtime.ops.request import MlpShape, OpsRequest
from runtime.ops.torch_attention import attend
from runtime.ops.torch_ops import TorchOps
from runtime.ops.triton_dequant import DequantLinear
from runtime.ops.triton_kernels import TritonKernels, load_kernels
from runtime.ops.triton_plan import TritonPlan
from runtime.ops.triton_warm_up import warm_up_attention, warm_up_norm, warm_up_write

_PLAIN = "linears: qkv, output, down, head"
_HEAD = "linear: head"


class TritonOps:
    """One instance serves one model; engines that share the model share it.

    Where a kernel cannot serve an operation, torch does it, which is logged once and reported.
    """

    needs_tables = True

    def __init__(self, name: str, gpu: FoundGpu, tuned: TunedKernels, request: OpsRequest) -> None:
        demands = request.demands
        self.name = name
        self._gpu = gpu
        self._tuned = tuned
        self._demands = demands
        self._deterministic = request.deterministic
        self.block_size = 0
        self._torch = TorchOps(use_kernels=False)
        self._resolved: TritonKernels | None = None
        self._resolved_for: tuple[str, str, int] | None = None
        """Type, type of the KV cache, and max_model_len."""
        self._decodes: list[Served] = []
        self._norms = {(norm.columns, norm.has_residual): norm for norm in demands.norms}
        self._writes = {
            (
                write.num_heads if write.rotary_dim else None,
                write.num_kv_heads,
                write.head_dim,
            ): write
            for write in demands.writes
        }

    def auto_dtype(self, checkpoint: str) -> str:
        """Take the checkpoint's: every GPU of the table multiplies all three."""
        return checkpoint

    def choose_block_size(self, dtype: str, kv_dtype: str, max_model_len: int) -> BlockSizeChoice:
        """Take the one whose decode attention was tuned fastest for this model and GPU."""
        return choose_block_size(self._tuned, self._demands, dtype, kv_dtype, max_model_len)

    def resolve(self, dtype: str, kv_dtype: str, block_size: int, limits: StepLimits) -> None:
        """Choose kernels for the model's layers; imports none of them."""
        wanted = (dtype, kv_dtype, limits.max_model_len)
        if self._resolved is None:
            stand_in = self._gpu.is_stand_in
            known = KernelSet(
                self._tuned,
                dtype,
                limits,
                kv_dtype=kv_dtype,
                is_stand_in=stand_in,
                deterministic=self._deterministic,
            )
            self._resolved, self._resolved_for = TritonKernels(known), wanted
        assert wanted == self._resolved_for, "engines that share a model share types and length"
        known = self._kernels.known
        self.block_size = block_size
        for spec in self._demands.attention:
            self._decodes.append(known.decode(spec, block_size))
            known.prefill(spec, block_size)
        if self._demands.mlp is not None:
            known.gate_up(self._demands.mlp)
        for linear in self._demands.quantised:
            known.quantised(linear)
        for norm in self._demands.norms:
            known.norm(norm)
        for write in self._demands.writes:
            known.write(write)

    def start(self, cache: KVCache) -> None:
        """Import the kernels of the cache's block size, and run each once.

        Kernels of the MLP and of quantised linears have been run when weights were prepared.
        """
        for norm in self._demands.norms:
            table = self._kernels.companion(norm)
            if table is not None:
                warm_up_norm(table, norm, cache)
        for write in self._demands.writes:
            table = self._kernels.companion(write)
            if table is not None:
                warm_up_write(table, write, cache)
        for spec in self._demands.attention:
            warm_up_attention(self._kernels.attention(spec, cache.block_size), spec, cache)

    @property
    def can_capture(self) -> bool:
        """Whether all attention runs on kernels; torch's reads block tables on the host."""
        return not any(isinstance(served, Fallback) for served in self._decodes)

    def report(self) -> OpsReport:
        """What was resolved, and what is left to torch."""
        rows = [row for served in self._kernels.known.served for row in served.rows()]
        what = _HEAD if self._demands.quantised else _PLAIN
        plain = KernelRow(what, "all", TORCH, reason="the vendor's library")
        if self._deterministic:
            # Chosen when weights are loaded, as their shapes are not known before.
            plain = KernelRow(what, "all", MLP)
        return OpsReport(
            gpu=self._gpu.arch.name,
            gpu_note=self._gpu.note,
            rows=(*rows, plain),
            refused=tuple(self._tuned.refused),
        )

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        """Prepare x W^T + b, for the vendor's library, whose sums depend on the number of rows."""
        if not self._deterministic:
            return self._torch.linear(weight, bias)
        n, k = weight.shape
        multiply = self._product(self._kernels.known.linear(n, k), weight, n)
        if bias is None:
            return multiply
        return lambda x: multiply(x).add_(bias)

    def gated_linear(
        self, weight: torch.Tensor, bias: torch.Tensor | None, activation: str
    ) -> Linear:
        """Prepare activation(gate) * up as one kernel, and run it once."""
        rows, k = weight.shape
        served = self._kernels.known.gate_up(MlpShape(rows // 2, k, activation, bias is not None))
        if isinstance(served, Fallback):
            return self._torch.gated_linear(weight, bias, activation)
        return self._product(served, weight, rows // 2)

    def _product(self, served: Served, weight: torch.Tensor, n: int) -> Linear:
        """Bind a kernel of the MLP's to a weight [.., k], and run it once: [m, k] -> [m, n]."""
        assert isinstance(served, KernelTable)
        table = self._kernels.bind(served)
        weight = weight.contiguous()
        num_sms = self._gpu.num_sms

        def call(x: torch.Tensor) -> torch.Tensor:
            out = x.new_empty((x.shape[0], n))
            table.at(x.shape[0])(out, x.contiguous(), weight, num_sms)
            return out

        one = weight.new_zeros((1, weight.shape[1]))
        for launch in table.distinct:
            launch(out=one.new_empty((1, n)), x=one, weight=weight, num_sms=num_sms)
        return call

    def quantised_linear(
        self, layer: QuantisedLayer, bias: torch.Tensor | None, activation: str | None
    ) -> Linear:
        """Prepare a linear over levels as one kernel, and run it once; the activation is torch's.

        Where no kernel is legal, torch multiplies by the numbers that the levels stand for.
        """
        table = self._kernels.quantised(layer)
        if table is None:
            return self._torch.quantised_linear(layer, bias, activation)
        linear = DequantLinear(table, layer, bias)
        return linear if activation is None else gated(linear, activation)

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """Norm of the last dimension, in float32."""
        table = self._kernels.companion(self._norms[x.shape[-1], False])
        if table is None:
            return self._torch.rms_norm(x, weight, eps)
        if x.stride(-1) != 1:
            x = x.contiguous()
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        table.at(x.numel() // x.shape[-1])(out, x, weight, eps)
        return out

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Norm of x + residual, and that sum."""
        table = self._kernels.companion(self._norms[x.shape[-1], True])
        if table is None:
            return self._torch.add_rms_norm(x, residual, weight, eps)
        out, total = torch.empty_like(residual), torch.empty_like(residual)
        table.at(x.shape[0])(out, total, residual, x, weight, eps)
        return out, total

    def plan(self, step: ModelInput, rope_table: torch.Tensor | None) -> TritonPlan:
        """Split the tables between the kernels; reads no value of them."""
        return TritonPlan(step, rope_table)

    def rotate_and_write(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv: LayerKV,
        plan: TritonPlan,
    ) -> torch.Tensor:
        """Rotate queries, in place, and keys; write keys and values to their slots."""
        table = self._kernels.companion(self._writes[query.shape[1], key.shape[1], key.shape[2]])
        if table is None:
            return self._torch.rotate_and_write(query, key, value, kv, plan)
        assert plan.rope_table is not None, "the plan was made without a table of angles"
        step, table_of_angles = plan.step, plan.rope_table
        table.at(key.shape[0])(
            *(query, query, key, value, kv.key, kv.value, *kv.scales),
            *(step.slot_mapping, step.positions, table_of_angles),
        )
        return query

    def write(self, key: torch.Tensor, value: torch.Tensor, kv: LayerKV, plan: TritonPlan) -> None:
        """Write keys and values, as they are, to their slots."""
        table = self._kernels.companion(self._writes[None, key.shape[1], key.shape[2]])
        if table is None:
            self._torch.write(key, value, kv, plan)
            return
        if key.stride(2) != 1:
            key = key.contiguous()
        if value.stride(2) != 1:
            value = value.contiguous()
        slots = plan.step.slot_mapping
        table.at(key.shape[0])(key, value, kv.key, kv.value, *kv.scales, slots)

    def attention(
        self, query: torch.Tensor, kv: LayerKV, plan: TritonPlan, spec: AttentionSpec
    ) -> torch.Tensor:
        """Decodes by one kernel, the rest by the other; all by torch where either is missing."""
        launches = plan.launches.get(spec)
        if launches is None:
            kernels = self._kernels.attention(spec, plan.step.block_size)
            launches = plan.launches[spec] = plan.choose(kernels)
        if launches.is_torch:
            return attend(query, kv, plan, spec)
        return plan.attend(query, kv, launches, spec.scale)

    @property
    def _kernels(self) -> TritonKernels:
        assert self._resolved is not None, "resolve() comes first"
        return self._resolved


def make(request: OpsRequest) -> TritonOps:
    """Make the set for the GPU that the device is, or for one by name, to plan only.

    Raises:
        DeviceError: there is no such GPU, or kernels would be interpreted.
        InvalidParameterError: the named GPU is in no table.
        KernelError: the folder for generated code is unusable.
    """
    if request.gpu is not None:
        gpu = named_gpu(request.gpu)
    else:
        if interpreter.is_chosen():
            raise DeviceError("TRITON_INTERPRET is set: unset it, or use --ops interpreter")
        gpu = find_gpu(request.device)
    return TritonOps("triton", gpu, load_kernels(gpu, request), request)
