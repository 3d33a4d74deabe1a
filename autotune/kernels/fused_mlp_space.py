"""Knobs of the fused MLP kernel and which of their combinations are legal on a GPU."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.arch import GpuArch
from autotune.config import KnobValue
from autotune.kernels.amd_options import amd_knobs
from autotune.kernels.dtypes import DTYPE_BYTES
from autotune.kernels.fused_mlp_problem import FusedMlpProblem
from autotune.kernels.reduction import REDUCTION, reduction_rules
from autotune.knob import Constraint, Knob
from autotune.space import SearchSpace

_TILE_KNOBS = (
    Knob("block_m", (16, 32, 64, 128, 256), "tokens per tile"),
    Knob("block_n", (32, 64, 128, 256), "output columns per tile"),
    Knob("block_k", (32, 64, 128), "products summed per iteration"),
    Knob("num_warps", (4, 8), "warps per program"),
    Knob("num_stages", (2, 3, 4, 5), "software pipeline depth"),
    Knob("swap_ab", (False, True), "weights on the M side of the matrix unit"),
    Knob(
        "schedule",
        ("tiles", "persistent"),
        "a program per tile, or one per SM that loops over tiles",
        ordered=False,
    ),
    Knob("group_m", (1, 8), "rows of tiles that share columns of weights", host=True),
)
_GATE_UP_KNOBS = (
    Knob(
        "gate_layout",
        ("two_dots", "interleaved"),
        "two weight tiles and products, or one tile with gate and up rows in turn",
        ordered=False,
    ),
)
_DOWN_KNOBS = (
    Knob("variant", ("plain", "split_k"), "one sum over K, or ranges added later", ordered=False),
    Knob("num_splits", (1, 2, 4, 8), "ranges of K", host=True),
)
VARIANTS = (
    Knob(
        "load",
        ("pointer", "descriptor"),
        "operands by addresses, or tiles of them by the copy engine (TMA)",
        ordered=False,
    ),
    Knob("flatten", (False, True), "one loop over tiles and K: the next tile loads under the last"),
    REDUCTION,
)
"""What an ordinary search leaves alone, on every GPU; only down has ranges to add."""
_DESCRIPTOR_BYTES = 16
"""Rows of what the copy engine reads are multiples of this apart."""
_UNROLLED_PRODUCTS = 1024
"""Most fp32 products of a thread in one step: they are unrolled, and twice as many spill on sm_100
and take many seconds to compile."""


def fused_mlp_space(problem: FusedMlpProblem, arch: GpuArch) -> SearchSpace:
    """Tile, operand order, schedule, warps, stages; gate layout or split of K by part."""
    own = _GATE_UP_KNOBS if problem.gated else _DOWN_KNOBS
    variants = VARIANTS[:-1] if problem.gated else VARIANTS
    rules = (
        *_tile_rules(problem, arch),
        *_schedule_rules(problem),
        *_variant_rules(problem, arch),
    )
    return SearchSpace((*own, *_TILE_KNOBS), rules, (*variants, *amd_knobs(arch)))


def expected_mma(
    problem: FusedMlpProblem, config: Mapping[str, KnobValue], arch: GpuArch
) -> str | None:
    """Matrix instruction class: warp groups (sm_90, sm_100) need 64 rows on the M side.

    None for fp32, which some targets multiply outside of the matrix unit.
    """
    if problem.dtype == "fp32":
        return None
    if arch.vendor == "amd":
        return "mfma"
    rows = config["block_m"]
    if config["swap_ab"]:
        rows = config["block_n"]
        if problem.gated and config["gate_layout"] == "interleaved":
            rows = 2 * int(rows)
    if int(rows) >= 64:
        return {"sm_90": "wgmma", "sm_100": "tcgen05"}.get(arch.target, "mma")
    return "mma"


def pipeline_bytes(problem: FusedMlpProblem, config: Mapping[str, KnobValue], arch: GpuArch) -> int:
    """Shared memory of the operand tiles, as Triton's pipeliner allots it.

    Asynchronous matrix units still read a tile while the next is awaited, so with them each operand
    has a buffer for every stage; elsewhere there is one less.
    """
    rows = int(config["block_m"]) + problem.halves * int(config["block_n"])
    buffers = int(config["num_stages"])
    if expected_mma(problem, config, arch) not in ("wgmma", "tcgen05"):
        buffers = max(1, buffers - 1)
    return buffers * rows * int(config["block_k"]) * DTYPE_BYTES[problem.dtype]


def _tile_rules(problem: FusedMlpProblem, arch: GpuArch) -> tuple[Constraint, ...]:
    halves = problem.halves
    most_accumulators = (arch.max_registers_per_thread + 1) // 2
    smallest_mma = 16 * (16 if arch.vendor == "amd" else 8)
    pipeline: tuple[str, ...] = ("block_m", "block_n", "block_k", "num_stages", "swap_ab")
    if problem.gated:
        pipeline = (*pipeline, "gate_layout")

    def fits(*values: KnobValue) -> bool:
        config = dict(zip(pipeline, values, strict=True))
        return pipeline_bytes(problem, config, arch) <= arch.shared_bytes_per_block

    rules = (
        Constraint(
            "each warp needs a matrix instruction of its own",
            ("block_m", "block_n", "num_warps"),
            lambda rows, cols, warps: rows * cols >= smallest_mma * warps,
        ),
        Constraint(
            "accumulators take more than half of the registers",
            ("block_m", "block_n", "num_warps"),
            lambda rows, cols, warps: (
                rows * cols * halves <= arch.warp_size * warps * most_accumulators
            ),
        ),
        Constraint("pipelined tiles exceed shared memory", pipeline, fits),
    )
    if problem.dtype != "fp32":
        return rules
    unrolled = Constraint(
        "fp32 products of a step are unrolled: too many for a thread",
        ("block_m", "block_n", "block_k", "num_warps"),
        lambda rows, cols, depth, warps: (
            rows * cols * halves * depth <= _UNROLLED_PRODUCTS * arch.warp_size * warps
        ),
    )
    return (*rules, unrolled)


def _schedule_rules(problem: FusedMlpProblem) -> tuple[Constraint, ...]:
    rules = (
        Constraint(
            "operands are swapped for few tokens only",
            ("block_m", "swap_ab"),
            lambda rows, swap: not swap or rows <= 64,
        ),
        Constraint(
            "a loop over tiles pays with many tokens only",
            ("block_m", "swap_ab", "schedule"),
            lambda rows, swap, schedule: schedule == "tiles" or (rows >= 64 and not swap),
        ),
    )
    if problem.gated:
        return rules
    return (
        *rules,
        Constraint(
            "one range is the plain variant",
            ("variant", "num_splits"),
            lambda variant, splits: (variant == "plain") == (splits == 1),
        ),
        Constraint(
            "K is split where there are few tiles: small ones, and no loop over them",
            ("variant", "block_m", "schedule"),
            lambda variant, rows, schedule: (
                variant == "plain" or (rows <= 128 and schedule == "tiles")
            ),
        ),
    )


def _variant_rules(problem: FusedMlpProblem, arch: GpuArch) -> tuple[Constraint, ...]:
    has_engine = arch.vendor == "nvidia" and arch.capability >= 90
    aligned = problem.k * DTYPE_BYTES[problem.dtype] % _DESCRIPTOR_BYTES == 0
    rules = [
        Constraint(
            f"{arch.target} has no copy engine for tiles: that came with sm_90",
            ("load",),
            lambda load: load == "pointer" or has_engine,
        ),
        Constraint(
            f"descriptors need rows of a multiple of {_DESCRIPTOR_BYTES} bytes",
            ("load",),
            lambda load: load == "pointer" or aligned,
        ),
        Constraint(
            "one loop over tiles and K is for loops over tiles that load by descriptors",
            ("schedule", "load", "flatten"),
            lambda schedule, load, flatten: (
                not flatten or (schedule == "persistent" and load == "descriptor")
            ),
        ),
    ]
    if not problem.gated:
        return (*rules, *reduction_rules("variant", problem.dtype, problem.n, arch))
    two_tiles = Constraint(
        "a descriptor loads neighbouring rows: gate and up are two tiles",
        ("gate_layout", "load"),
        lambda layout, load: load == "pointer" or layout == "two_dots",
    )
    return (*rules, two_tiles)
