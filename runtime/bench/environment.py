"""The machine and the libraries that a result belongs to."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any


def describe_environment(device: str = "cpu") -> dict[str, Any]:
    """Return what a reader needs to judge a figure measured on a device of torch's, as JSON."""
    return {
        "device": device if device == "cpu" else _gpu_name(device),
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "instructions": _instructions(),
        "load_average_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def _gpu_name(device: str) -> str:
    import torch

    return str(torch.cuda.get_device_name(device))


def _cpu_name() -> str:
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _instructions() -> list[str]:
    """Vector and matrix extensions that decide which type is fastest."""
    flags = set(_cpu_info("flags").split())
    return [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]


def _cpu_info(field: str) -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    return ""
