"""Knobs of the dequant GEMM and which of their combinations are legal on a GPU."""

from __future__ import annotations

from autotune.arch import GpuArch
from autotune.config import Config
from autotune.kernels.amd_options import amd_knobs
from autotune.kernels.dequant_gemm_problem import DequantGemmProblem
from autotune.kernels.dtypes import DTYPE_BYTES
from autotune.kernels.reduction import REDUCTION, reduction_rules
from autotune.knob import Constraint, Knob
from autotune.space import SearchSpace

MATRIX_ROWS = 16
"""Fewer rows than this are summed without the matrix unit."""

VARIANTS = (REDUCTION,)
"""What an ordinary search leaves alone, on every GPU."""


def dequant_gemm_space(problem: DequantGemmProblem, arch: GpuArch) -> SearchSpace:
    """Kind, tile, operand order, where scales apply, split, warps and pipeline stages."""
    size, group = DTYPE_BYTES[problem.dtype], problem.group_size
    bits = 8 if problem.in_words else problem.bits  # a byte of every word counts, as if unpacked
    loaded_bits = 32 if problem.in_words else problem.bits
    threads_per_warp = arch.warp_size
    knobs = (
        Knob(
            "kind",
            ("gemv", "gemm", "split_k"),
            "sums without the matrix unit; matrix unit; either over ranges of K",
            ordered=False,
        ),
        Knob("block_m", (1, 4, 16, 32, 64, 128), "rows of x per program; below 16: sums"),
        Knob("block_n", (16, 32, 64, 128, 256), "output features per program"),
        Knob("block_k", (32, 64, 128, 256), "input features per step"),
        Knob("swap_ab", (False, True), "weights on the M side of the matrix unit"),
        Knob(
            "dequant",
            ("sub_mul", "scale_after"),
            "scale every weight, or the partial product of each group",
            ordered=False,
        ),
        Knob("num_warps", (1, 2, 4, 8), "warps per program"),
        Knob("num_stages", (1, 2, 3, 4, 5), "software pipeline depth"),
        Knob("weight_eviction", ("", "evict_first"), "L2 hint on weight loads", ordered=False),
        Knob("split_k", (1, 2, 4, 8, 16), "ranges of K", host=True),
    )

    def is_matrix(block_m: int) -> bool:
        return block_m >= MATRIX_ROWS

    def registers(block_m: int, block_n: int, block_k: int, dequant: str, warps: int) -> float:
        # Of one thread: sums (twice if a group's are kept apart), dequantised weights and x.
        sums = block_m * block_n * (2 if dequant == "scale_after" and group else 1)
        return (sums + (block_m + block_n) * block_k * size / 4) / (warps * threads_per_warp)

    constraints = (
        Constraint(
            "gemv sums up to 4 rows, gemm multiplies 16 or more",
            ("kind", "block_m"),
            lambda kind, block_m: kind == "split_k" or (kind == "gemm") == is_matrix(block_m),
        ),
        Constraint(
            "sums take 16 to 64 columns, matrix products 32 or more",
            ("block_m", "block_n"),
            lambda block_m, block_n: block_n >= 32 if is_matrix(block_m) else block_n <= 64,
        ),
        Constraint(
            "only a matrix product with 64 or more columns gains by swapping",
            ("block_m", "block_n", "swap_ab"),
            lambda block_m, block_n, swap: not swap or (is_matrix(block_m) and block_n >= 64),
        ),
        Constraint(
            "sums are scaled after each group; products too only if a step lies in one group",
            ("block_m", "block_k", "dequant"),
            lambda block_m, block_k, dequant: (
                not group or block_k <= group or dequant == "sub_mul"
                if is_matrix(block_m)
                else dequant == "scale_after"
            ),
        ),
        Constraint(
            "a thread takes one to four 16-byte cells per step of a sum",
            ("block_m", "block_n", "block_k", "num_warps"),
            lambda block_m, block_n, block_k, warps: (
                is_matrix(block_m)
                or 1 <= block_n * block_k * bits // 128 / (threads_per_warp * warps) <= 4
            ),
        ),
        Constraint(
            "a thread takes 16 to 128 weights per step of a matrix product",
            ("block_m", "block_n", "block_k", "num_warps"),
            lambda block_m, block_n, block_k, warps: (
                not is_matrix(block_m)
                or 16 <= block_n * block_k / (threads_per_warp * warps) <= 128
            ),
        ),
        Constraint(
            "each warp needs 16 x 16 outputs",
            ("block_m", "block_n", "num_warps"),
            lambda block_m, block_n, warps: (
                not is_matrix(block_m) or block_m * block_n >= 256 * warps
            ),
        ),
        Constraint(
            "sums and weights exceed the register file",
            ("block_m", "block_n", "block_k", "dequant", "num_warps"),
            lambda block_m, block_n, block_k, dequant, warps: (
                not is_matrix(block_m)
                or registers(block_m, block_n, block_k, dequant, warps)
                <= arch.max_registers_per_thread - 64
            ),
        ),
        Constraint(
            "pipelined tiles exceed shared memory",
            ("block_m", "block_n", "block_k", "num_stages"),
            lambda block_m, block_n, block_k, stages: (
                max(1, stages - 1) * block_k * (block_n * loaded_bits / 8 + block_m * size)
                <= arch.shared_bytes_per_block
            ),
        ),
        Constraint(
            "one warp alone does not keep the matrix unit busy",
            ("block_m", "num_warps"),
            lambda block_m, warps: warps >= 2 or not is_matrix(block_m),
        ),
        Constraint(
            "sums need no deep pipeline: many programs share an SM",
            ("block_m", "num_stages"),
            lambda block_m, stages: stages <= 3 or is_matrix(block_m),
        ),
        Constraint(
            "blocks of 128 rows fill the GPU without splitting K",
            ("kind", "block_m"),
            lambda kind, block_m: kind != "split_k" or block_m < 128,
        ),
        Constraint(
            "weights that several blocks of rows read should stay in L2",
            ("block_m", "weight_eviction"),
            lambda block_m, eviction: not eviction or block_m <= 16,
        ),
        Constraint(
            "split_k has two or more ranges, the other kinds one",
            ("kind", "split_k"),
            lambda kind, splits: (kind == "split_k") == (splits > 1),
        ),
        *reduction_rules("kind", problem.dtype, problem.n, arch),
        Constraint(
            "sums are single numbers, and of 16 bits only pairs are added in one instruction",
            ("block_m", "reduction"),
            lambda block_m, reduction: reduction == "workspace" or size == 4 or is_matrix(block_m),
        ),
    )
    return SearchSpace(knobs, constraints, (*VARIANTS, *amd_knobs(arch)))


def expected_mma(problem: DequantGemmProblem, config: Config, arch: GpuArch) -> str | None:
    """Hopper and datacenter Blackwell need 64 rows on the M side and a warp group."""
    block_m, block_n = config.number("block_m"), config.number("block_n")
    if problem.dtype == "fp32" or block_m < MATRIX_ROWS:
        return None
    if arch.vendor == "amd":
        return "mfma"
    wide = (block_n if config["swap_ab"] else block_m) >= 64 and config.number("num_warps") >= 4
    return {90: "wgmma", 100: "tcgen05"}.get(arch.capability, "mma") if wide else "mma"
