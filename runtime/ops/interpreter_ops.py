"""The GPU operations on CPU tensors, their kernels in Triton's interpreter: slow, and the same.

For tests, and to try kernels out where there is no GPU: what runs is the very source that would be
compiled.
"""

from __future__ import annotations

import dataclasses

from runtime import interpreter
from runtime.errors import InvalidParameterError
from runtime.gpu import named_gpu
from runtime.ops.limits import StepLimits
from runtime.ops.request import OpsRequest
from runtime.ops.triton_kernels import load_kernels
from runtime.ops.triton_ops import TritonOps

_GPU = "a100"
"""Whose kernels are interpreted, unless another is named."""
_NUM_SMS = 4
"""So few that a persistent kernel has to loop."""


class InterpreterOps(TritonOps):
    """Takes fp32 and fp16: the interpreter adds bf16 numbers up wrongly."""

    def auto_dtype(self, checkpoint: str) -> str:
        """Take the checkpoint's, or fp32 for bf16, which holds every bf16 number."""
        return "fp32" if checkpoint == "bf16" else checkpoint

    def resolve(self, dtype: str, kv_dtype: str, block_size: int, limits: StepLimits) -> None:
        """Choose kernels for the model's layers."""
        if dtype == "bf16":
            raise InvalidParameterError("dtype", dtype, "fp32 or fp16 in Triton's interpreter")
        super().resolve(dtype, kv_dtype, block_size, limits)


def make(request: OpsRequest) -> InterpreterOps:
    """Make the set.

    Raises:
        DeviceError: this process compiles Triton kernels.
        InvalidParameterError: the named GPU is in no table.
        KernelError: the folder for generated code is unusable.
    """
    if request.gpu is None:
        interpreter.require()
    gpu = named_gpu(request.gpu or _GPU)
    kernels = load_kernels(gpu, request)
    note = f"Triton's interpreter, with the kernels of {gpu.arch.name}"
    gpu = dataclasses.replace(gpu, num_sms=_NUM_SMS, note=note)
    return InterpreterOps("interpreter", gpu, kernels, request)
