"""A guess at an uncompiled candidate's time, to decide what to compile first.

Counts alone, no compiler: a search guesses a hundred thousand times, so this is the cost model's
skeleton rather than the model. Only ranks matter; nothing of it is shown or stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotune.arch import GpuArch
from autotune.kernels.spec import Work
from autotune.space import Config

_REGISTERS = 96
"""Per thread: about what these templates take before anything is known."""
_LATENCY_US = 0.65
_LAUNCH_US = 2.0
_ISSUE_BYTES_PER_US = 100_000.0
"""Bytes of tiles that one warp turns into operands, at best."""
_MATRIX_EFFICIENCY = 0.6


def guess_us(arch: GpuArch, works: Sequence[Work], config: Config) -> float:
    """Rough time of a configuration whose binary does not exist yet."""
    warps, stages = config.number("num_warps"), config.number("num_stages")
    depth = max(1, stages - 1)
    threads = warps * arch.warp_size
    by_threads = min(
        arch.max_threads_per_sm // threads, arch.registers_per_sm // (_REGISTERS * threads)
    )
    total = 0.0
    for work in works:
        shared = work.step_bytes * depth + 1024
        blocks = max(1, min(by_threads, int(arch.shared_bytes_per_sm / shared)))
        rounds = math.ceil(work.grid / (arch.sm_count * blocks))
        per_sm = math.ceil(work.grid / arch.sm_count)
        dram = work.dram_bytes / (arch.dram_gbs * 1e3)
        l2 = work.l2_bytes / (arch.dram_gbs * 3e3)
        rate = arch.peak_tflops.get(work.matrix_dtype or "fp32", arch.peak_tflops["fp32"])
        fed = min(1.0, min(per_sm, blocks) * warps / 4.0) * _MATRIX_EFFICIENCY
        matrix = per_sm * work.flops / max(1, work.grid) * arch.sm_count / (rate * 1e6 * fed)
        step = max(_LATENCY_US / depth, work.step_bytes / (warps * _ISSUE_BYTES_PER_US))
        latency = rounds * work.longest_steps * step
        largest = max(dram, l2, matrix, latency)
        # What overlaps badly adds a little: among equals the leaner one comes first.
        total += _LAUNCH_US + 0.8 * largest + 0.2 * (dram + l2 + matrix + latency)
    return total
