"""Which row of the GPU table a device is, or which row stands in for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from autotune.arch import GPUS, GpuArch, match_device_name
from runtime.errors import DeviceError, InvalidParameterError


@dataclass(frozen=True, slots=True)
class FoundGpu:
    """A GPU whose kernels are to be used."""

    arch: GpuArch
    num_sms: int
    """Of the device itself."""
    is_stand_in: bool
    """Whether `arch` is another product with the same compiler target."""
    note: str
    """One line: why this row of the table."""


def named_gpu(name: str) -> FoundGpu:
    """Return a GPU of the table, whether it is here or not.

    Raises:
        InvalidParameterError: there is none of this name; lists those that exist.
    """
    arch = GPUS.get(name.lower())
    if arch is None:
        raise InvalidParameterError("gpu", name, f"one of {', '.join(GPUS)}")
    return FoundGpu(arch, arch.sm_count, is_stand_in=False, note=f"{arch.title}, by name")


def find_gpu(device: torch.device) -> FoundGpu:
    """Look a CUDA or ROCm device up.

    Raises:
        DeviceError: there is no such device, or no GPU of the table has its compiler target.
    """
    if not torch.cuda.is_available():
        raise DeviceError(
            "no GPU can be used here: PyTorch finds no CUDA or ROCm device. Use --ops torch, or "
            "--ops interpreter to try the kernels out; --explain --gpu NAME plans for an absent one"
        )
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip is not None:
        target = properties.gcnArchName.partition(":")[0]  # "gfx942:sramecc+:xnack-"
    else:
        target = f"sm_{properties.major}{properties.minor}"
    return match_gpu(properties.name, target, properties.multi_processor_count)


def match_gpu(device_name: str, target: str, num_sms: int) -> FoundGpu:
    """Find the row of a device: by name, else the one of its compiler target nearest in SMs.

    Args:
        device_name: as the driver says.
        target: "sm_90", "gfx942".
        num_sms: streaming multiprocessors, or compute units.

    Raises:
        DeviceError: no row has this target.
    """
    arch = match_device_name(device_name)
    if arch is not None:
        return FoundGpu(
            arch, num_sms, is_stand_in=False, note=f"{device_name}, which is {arch.name}"
        )
    rows = [row for row in GPUS.values() if row.target == target]
    if not rows:
        known = ", ".join(sorted({row.target for row in GPUS.values()}))
        raise DeviceError(
            f"no kernels for {device_name} ({target}): the compiler targets known are {known}. "
            "Use --ops torch, or add the GPU to autotune/gpu_rows and tune for it with autotune run"
        )
    nearest = min(rows, key=lambda row: abs(row.sm_count - num_sms))
    note = (
        f"{device_name} ({target}, {num_sms} SMs) is in no table: kernels of {nearest.name} "
        f"({nearest.sm_count} SMs), which has the same compiler target"
    )
    return FoundGpu(nearest, num_sms, is_stand_in=True, note=note)
