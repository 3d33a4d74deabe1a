"""How sums come together: over ranges of K, as a knob, and in which order, as a rule."""

from __future__ import annotations

from autotune.arch import GpuArch
from autotune.config import Config, KnobValue
from autotune.kernels.amd_options import compile_options
from autotune.kernels.dtypes import DTYPE_BYTES
from autotune.knob import Constraint, Knob

_KNOWN_MULTIPLE = 16
"""What Triton notes of an argument is whether this divides it."""

REDUCTION = Knob(
    "reduction",
    ("workspace", "atomic"),
    "fp32 sums added in order by a second kernel, or sums added to the output as they come",
    ordered=False,
    unrepeatable=("atomic",),
)


def adds_atomically(dtype: str, arch: GpuArch) -> bool:
    """Whether the GPU adds numbers of this type to memory: NVIDIA bf16 only from sm_90 on."""
    return dtype != "bf16" or arch.vendor == "amd" or arch.capability >= 90


def reduction_rules(kind: str, dtype: str, n: int, arch: GpuArch) -> tuple[Constraint, ...]:
    """Constraints of `REDUCTION`, where the knob `kind` has the value "split_k" for ranges of K.

    Outputs have rows of `n` numbers. GPUs add those of 16 bits in pairs, and alone only in loops of
    compare-and-swap; and the compiler knows of no multiple but 16 that rows begin at one.
    """
    in_pairs = DTYPE_BYTES[dtype] == 4 or n % _KNOWN_MULTIPLE == 0
    return (
        Constraint(
            "only ranges of K are added up",
            (kind, "reduction"),
            lambda value, reduction: reduction == "workspace" or value == "split_k",
        ),
        Constraint(
            f"{arch.target} adds no {dtype} to memory atomically",
            ("reduction",),
            lambda reduction: reduction == "workspace" or adds_atomically(dtype, arch),
        ),
        Constraint(
            f"sums of 16 bits are added in pairs where N is a multiple of {_KNOWN_MULTIPLE}",
            ("reduction",),
            lambda reduction: reduction == "workspace" or in_pairs,
        ),
    )


def order_by(config: Config, *knobs: str, **others: KnobValue) -> Config:
    """Order of summation as some knobs set it, options of the compiler's, and what is given."""
    named = {name: config[name] for name in knobs if name in config}
    return Config({**named, **compile_options(config), **others})
