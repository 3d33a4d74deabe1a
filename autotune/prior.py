"""A guess at an uncompiled candidate's time, to decide what to compile first.

The cost model is fed with what the compiler would roughly say. Only ranks matter here; nothing of
it is shown or stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotune.arch import GpuArch
from autotune.cost_model import CostModel
from autotune.kernels.spec import Work
from autotune.records import CompileReport
from autotune.space import Config

_MMA_FLOPS = 4096
"""Of one m16n8k16 instruction."""
_REGISTERS = 96


def guess_us(model: CostModel, works: Sequence[Work], config: Config) -> float:
    """Rough time of a configuration whose binary does not exist yet."""
    return model.predict(
        works, [_guessed_report(work, config, model.arch) for work in works]
    ).time_us


def _guessed_report(work: Work, config: Config, arch: GpuArch) -> CompileReport:
    warps = config.number("num_warps")
    stages = config.number("num_stages")
    per_step = 1.0 / max(1.0, work.grid * work.loop_steps * warps)
    mma = math.ceil(work.flops * per_step / _MMA_FLOPS) if work.matrix_dtype else 0
    loads = math.ceil(work.step_bytes / (16.0 * arch.warp_size * warps))
    pipelined = stages > 1
    loop = {
        "mma": mma,
        "async_copy" if pipelined else "load_global": loads,
        "load_shared": max(1, mma // 2),
        "float": 16 + mma,
        "integer": 24 + 4 * loads,
    }
    return CompileReport(
        entry=work.entry,
        registers=_REGISTERS,
        stack_bytes=0,
        shared_bytes=int(work.step_bytes * max(1, stages - 1)),
        num_warps=warps,
        num_stages=stages,
        mma=("mfma" if arch.vendor == "amd" else "mma") if mma else None,
        loop=loop,
        loop_mma_flops=mma * _MMA_FLOPS,
        binary_bytes=0,
        binary_sha="",
    )
