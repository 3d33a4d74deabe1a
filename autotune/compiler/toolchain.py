"""Versions and paths of the compiler that Triton brings along."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
from pathlib import Path

from autotune.arch import GpuArch
from autotune.errors import AutotuneError
from autotune.records import Environment


def nvidia_tool(name: str) -> Path:
    """Path of `ptxas`, `ptxas-blackwell`, `cuobjdump` or `nvdisasm` inside the triton package."""
    found = importlib.util.find_spec("triton")
    if found is None or found.origin is None:
        raise AutotuneError("triton is not installed; kernels cannot be compiled without it")
    return Path(found.origin).parent / "backends" / "nvidia" / "bin" / name


def triton_version() -> str:
    """Version of the installed triton, read without importing it."""
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError as error:
        raise AutotuneError("triton is not installed; run: pip install triton") from error


def assembler_version(arch: GpuArch) -> str:
    """`ptxas 13.1.80` for NVIDIA targets; AMD code is assembled by the LLVM inside Triton."""
    if arch.vendor == "amd":
        return f"llvm of triton {triton_version()}"
    tool = nvidia_tool("ptxas-blackwell" if arch.capability >= 100 else "ptxas")
    try:
        done = subprocess.run([str(tool), "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise AutotuneError(f"{tool} does not run: {error}") from error
    found = re.search(r"V(\d+\.\d+\.\d+)", done.stdout)
    return f"ptxas {found.group(1) if found else 'unknown'}"


def environment(arch: GpuArch) -> Environment:
    """What compile facts depend on, for a GPU that is not at hand."""
    return Environment(triton=triton_version(), assembler=assembler_version(arch))
