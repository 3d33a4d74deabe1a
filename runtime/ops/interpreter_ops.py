"""The GPU operations on CPU tensors, their kernels in Triton's interpreter: slow, and the same.

For tests, and to try kernels out where there is no GPU: what runs is the very source that would be
compiled.
"""

from __future__ import annotations

import dataclasses

from runtime import interpreter
from runtime.gpu import named_gpu
from runtime.ops.request import OpsRequest
from runtime.ops.triton_kernels import load_kernels
from runtime.ops.triton_ops import TritonOps

_GPU = "a100"
"""Whose kernels are interpreted, unless another is named."""
_NUM_SMS = 4
"""So few that a persistent kernel has to loop."""


class InterpreterOps(TritonOps):
    """The GPU's operations as they are."""


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
