"""Options of Triton's AMD backend as knobs, and on their way into a rendered module.

After AMD's "Optimizing Triton kernels" (ROCm documentation): how many waves a SIMD should hold,
which shape of MFMA instruction, and how many of its operands a thread reads at once.
"""

from __future__ import annotations

from autotune.arch import GpuArch
from autotune.config import Config
from autotune.knob import Knob

_KNOBS = (
    Knob("waves_per_eu", (0, 1, 2, 4), "waves per SIMD to save registers for; 0: the compiler's"),
    Knob("matrix_instr_nonkdim", (0, 16), "rows of a matrix instruction; 0: the compiler's"),
    Knob("kpack", (1, 2), "depth of operands read from shared memory at once"),
)


def amd_knobs(arch: GpuArch, without: tuple[str, ...] = ()) -> tuple[Knob, ...]:
    """Variants that templates have on AMD GPUs, less what one of them fixes; none elsewhere."""
    return tuple(k for k in _KNOBS if arch.vendor == "amd" and k.name not in without)


def compile_options(config: Config) -> dict[str, int]:
    """Options that `config` sets, beside warps and stages; plain values are left out."""
    return {
        knob.name: config.number(knob.name)
        for knob in _KNOBS
        if knob.name in config and config[knob.name] != knob.values[0]
    }
