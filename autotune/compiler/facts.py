"""From a compiled entry point to a `CompileReport`."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from pathlib import Path

from autotune.arch import GpuArch
from autotune.compiler.cross import Binary
from autotune.compiler.mix import AMDGCN, PTX, hottest_loop
from autotune.compiler.toolchain import nvidia_tool
from autotune.errors import CandidateError
from autotune.records import CompileReport

_MMA_CLASSES = (
    ("tcgen05", re.compile(r"\btcgen05\.mma")),
    ("wgmma", re.compile(r"\bwgmma\.mma_async")),
    ("mma", re.compile(r"\bmma\.sync")),
    ("mfma", re.compile(r"\bv_mfma_")),
)


def report(binary: Binary, arch: GpuArch) -> CompileReport:
    """Read registers, stack, shared memory and the main loop's instructions off one binary."""
    text = binary.asm["amdgcn"] if arch.vendor == "amd" else binary.asm["ptx"]
    registers, stack = _amd_usage(text) if arch.vendor == "amd" else _nvidia_usage(binary)
    loop = hottest_loop(text, AMDGCN if arch.vendor == "amd" else PTX)
    code = binary.machine_code
    return CompileReport(
        entry=binary.entry,
        registers=registers,
        stack_bytes=stack,
        shared_bytes=binary.shared_bytes,
        num_warps=binary.num_warps,
        num_stages=binary.num_stages,
        mma=next((name for name, pattern in _MMA_CLASSES if pattern.search(text)), None),
        loop=loop.counts,
        loop_mma_flops=loop.mma_flops,
        binary_bytes=len(code),
        binary_sha=hashlib.sha256(code).hexdigest()[:16],
    )


def _nvidia_usage(binary: Binary) -> tuple[int, int]:
    """Registers and stack bytes per thread. Spills show as STACK; LOCAL stays 0 for Triton code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.machine_code)
        file.flush()
        text = run_tool("cuobjdump", "-res-usage", file.name)
    found = re.search(r"REG:(\d+)\s+STACK:(\d+)", text)
    if found is None:
        raise CandidateError(f"{binary.entry}: cuobjdump printed no resource usage")
    return int(found.group(1)), int(found.group(2))


def _amd_usage(text: str) -> tuple[int, int]:
    """Vector registers (accumulators included) and scratch bytes per work item."""

    def number(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", text)
        return int(found.group(1)) if found else 0

    spilled = 4 * (number("vgpr_spill_count") + number("sgpr_spill_count"))
    return number("vgpr_count"), max(number("private_segment_fixed_size"), spilled)


def disassemble(binary: Binary, arch: GpuArch) -> str:
    """Machine code as text: SASS by nvdisasm, or the AMDGPU assembly that was assembled."""
    if arch.vendor == "amd":
        text: str = binary.asm["amdgcn"]
        return text
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.machine_code)
        file.flush()
        return run_tool("nvdisasm", "-c", file.name)


def run_tool(name: str, *arguments: str) -> str:
    """Run one of the assembler's companions that Triton ships and return what it prints.

    Raises:
        CandidateError: the tool is missing or fails.
    """
    tool: Path = nvidia_tool(name)
    try:
        done = subprocess.run(
            [str(tool), *arguments], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CandidateError(f"{tool} failed: {error}") from error
    return done.stdout
