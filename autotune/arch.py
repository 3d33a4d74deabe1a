"""What GPUs can do, by name: all rows of `gpu_rows`. Devices are found in `device`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from autotune.errors import UnknownChoiceError
from autotune.gpu_arch import BF16, FP8, FP16, FP32, INT8, GpuArch
from autotune.gpu_rows import amd, nvidia_data_center, nvidia_rtx

__all__ = [
    "BF16",
    "FP8",
    "FP16",
    "FP32",
    "GPUS",
    "INT8",
    "GpuArch",
    "lookup",
    "match_device_name",
]

_ROWS = (*nvidia_data_center.ROWS, *nvidia_rtx.ROWS, *amd.ROWS)

GPUS: Mapping[str, GpuArch] = {row.name: row for row in _ROWS}
"""Every GPU that can be tuned for, by name. Adding one takes one row in `gpu_rows`."""


def lookup(name: str) -> GpuArch:
    """Return the row called `name`, in any letter case.

    Raises:
        UnknownChoiceError: no row has this name; the message offers near names and lists all.
    """
    row = GPUS.get(name.lower())
    if row is None:
        raise UnknownChoiceError("GPU", name, GPUS)
    return row


def match_device_name(name: str) -> GpuArch | None:
    """Return the row of the product that the driver calls `name`; None when no row is about it.

    Slices and variants (a MIG instance, "RTX 4090 Laptop GPU", "H200 NVL") are other hardware
    under a longer name, so patterns have to match in full.
    """
    for row in _ROWS:
        if any(re.fullmatch(pattern, name, re.IGNORECASE) for pattern in row.device_names):
            return row
    return None
