"""Linear layer over weights of 4 or 8 bits: GEMV, GEMM, and either with K split over programs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from autotune.arch import GpuArch
from autotune.config import Config, KnobValue
from autotune.kernels import dequant_gemm_problem
from autotune.kernels.amd_options import compile_options
from autotune.kernels.dequant_gemm_problem import DequantGemmProblem
from autotune.kernels.dequant_gemm_space import (
    MATRIX_ROWS,
    VARIANTS,
    dequant_gemm_space,
    expected_mma,
)
from autotune.kernels.dtypes import (
    ACCUMULATION_ERROR,
    DTYPE_BYTES,
    MACHINE_EPSILON,
    dot_precision,
)
from autotune.kernels.reduction import order_by
from autotune.kernels.spec import Inputs, Tolerance, Work
from autotune.knob import plain_values
from autotune.model_shape import ModelShape
from autotune.space import SearchSpace

if TYPE_CHECKING:
    import torch


class DequantGemm:
    """Template `dequant_gemm.py.jinja`."""

    name: ClassVar[str] = "dequant_gemm"
    template: ClassVar[str] = "dequant_gemm.py.jinja"
    problem_type = DequantGemmProblem

    def space(self, problem: DequantGemmProblem, arch: GpuArch) -> SearchSpace:
        """Kind, tile, operand order, where scales apply, split, warps and pipeline stages."""
        return dequant_gemm_space(problem, arch)

    def default_config(self, problem: DequantGemmProblem, arch: GpuArch) -> Config:
        """What libraries ship per number of rows (gemlite's dispatch, Meta's split-K tiles).

        One row is a GEMV; below 64 rows a split-K GEMM with enough ranges for two programs per SM,
        at most 16; from 64 rows a plain GEMM.
        """
        m = problem.m
        splits = 1
        tile: dict[str, KnobValue]
        if m <= 1:
            tile = {"kind": "gemv", "block_m": 1, "block_n": 16, "block_k": 256}
            tile |= {"dequant": "scale_after", "num_stages": 1}
            tile |= {"num_warps": 128 // arch.warp_size}
        elif m < 64:
            block_m = 16 if m <= 16 else 32
            tiles = math.ceil(m / block_m) * math.ceil(problem.n / 64)
            while splits < 16 and tiles * splits < 2 * arch.sm_count:
                splits *= 2
            tile = {"kind": "split_k", "block_m": block_m, "block_n": 64, "block_k": 64}
            tile |= {"dequant": "sub_mul", "num_warps": 4, "num_stages": 3}
            splits = max(2, splits)
        else:
            rows, warps = (64, 4) if m < 256 else (128, 256 // arch.warp_size)
            tile = {"kind": "gemm", "block_m": rows, "block_n": 64, "block_k": 64}
            tile |= {"dequant": "sub_mul", "num_warps": warps, "num_stages": 3}
        if m > 1 and (problem.dtype == "fp32" or problem.n % 16 or problem.k % 16):
            # Products or loads one element at a time: large tiles would not fit the registers.
            tile |= {"block_m": 16, "block_n": 32, "block_k": 64, "num_warps": 2}
        wanted = {**tile, "swap_ab": False, "weight_eviction": "", "split_k": splits}
        space = self.space(problem, arch)
        # Most often legal as it is, and then nothing has to be listed.
        return Config(wanted) if space.why_illegal(wanted) is None else space.closest(wanted)

    def template_values(self, problem: DequantGemmProblem, config: Config) -> Mapping[str, Any]:
        """Entry point, groups per step, how integers become floats, and what is aligned.

        N and K are run-time arguments: only their divisibility enters the source.
        """
        block_k, group = config.number("block_k"), problem.group_size
        matrix = config.number("block_m") >= MATRIX_ROWS
        name, magic = _magic(problem, matrix)
        if problem.in_words:
            magic = None
        unaligned = ["m"]
        unaligned += ["n"] if problem.n % 16 else []
        unaligned += ["k", "stride_x"] if problem.k % 16 else []
        return {
            "entry": _entry(config),
            "scale_rows": block_k // group if group and block_k > group else 1,
            "even_k": problem.k % block_k == 0,
            "magic": magic,
            "product_dtype": name,
            "dot_precision": dot_precision(problem.dtype),
            "unaligned": unaligned,
            "options": compile_options(config),
            **plain_values(VARIANTS, config),
        }

    def work(self, problem: DequantGemmProblem, config: Config, arch: GpuArch) -> tuple[Work, ...]:
        """One program per tile of the output and range of K; then one per 512 split sums."""
        size, splits = DTYPE_BYTES[problem.dtype], config.number("split_k")
        block_m, block_n = config.number("block_m"), config.number("block_n")
        block_k = config.number("block_k")
        matrix = block_m >= MATRIX_ROWS
        row_tiles = math.ceil(problem.m / block_m)
        column_tiles = math.ceil(problem.n / block_n)
        steps = math.ceil(problem.k / block_k)
        weight_bytes = 1.0 * problem.weight_bytes + problem.group_bytes
        x_bytes = 1.0 * problem.m * problem.k * size
        out_bytes = 1.0 * problem.m * problem.n * size
        atomic = config.get("reduction") == "atomic"
        apart = splits > 1 and not atomic
        partial_bytes = 4.0 * problem.m * problem.n * splits if apart else 0.0
        added_bytes = out_bytes * splits if atomic else 0.0
        loaded_bits = 32 if problem.in_words else problem.bits
        tables = 2 if problem.zero_point else 1
        group_rows = math.ceil(block_k / problem.group_size) if problem.group_size else 0
        main = Work(
            entry=_entry(config),
            grid=row_tiles * column_tiles * splits,
            loop_steps=steps / splits,
            longest_steps=math.ceil(steps / splits),
            flops=2.0 * row_tiles * block_m * column_tiles * block_n * steps * block_k,
            matrix_dtype=problem.dtype if matrix else None,
            dram_bytes=weight_bytes + x_bytes + (0.0 if apart else out_bytes),
            l2_bytes=row_tiles * weight_bytes
            + column_tiles * x_bytes
            + (partial_bytes if apart else added_bytes or out_bytes),
            step_bytes=block_n * block_k * loaded_bits / 8
            + block_m * block_k * size
            + block_n * group_rows * tables * size,
            atomic_bytes=added_bytes,
            fills=1 if atomic else 0,
            tile=(block_n, block_m, block_k) if config["swap_ab"] else (block_m, block_n, block_k),
        )
        if not apart:
            return (main,)
        reduce = Work(
            entry="dequant_gemm_reduce",
            grid=math.ceil(problem.m * problem.n / 512),
            loop_steps=math.ceil(splits / 8),
            longest_steps=math.ceil(splits / 8),
            flops=0.0,
            matrix_dtype=None,
            dram_bytes=out_bytes,
            l2_bytes=partial_bytes + out_bytes,
            step_bytes=4.0 * 512 * min(splits, 8),
        )
        return (main, reduce)

    def flops(self, problem: DequantGemmProblem) -> float:
        """2 m n k; turning integers into floats is not counted."""
        return 2.0 * problem.m * problem.n * problem.k

    def min_bytes(self, problem: DequantGemmProblem) -> float:
        """Weights, scales and zeros once; x in, the output out."""
        size = DTYPE_BYTES[problem.dtype]
        weights = problem.n * problem.k * problem.bits / 8 + problem.group_bytes
        return weights + 1.0 * size * problem.m * (problem.k + problem.n)

    def expected_mma(
        self, problem: DequantGemmProblem, config: Config, arch: GpuArch
    ) -> str | None:
        """Hopper and datacenter Blackwell need 64 rows on the M side and a warp group."""
        return expected_mma(problem, config, arch)

    def reduction_order(self, problem: DequantGemmProblem, config: Config, arch: GpuArch) -> Config:
        """Ranges and steps of K, and what sums a step: a matrix instruction, or threads.

        Threads share a step by the shape of the tile and the number of warps.
        """
        knobs = ["kind", "split_k", "block_k", "swap_ab", "dequant"]
        if config.number("block_m") < MATRIX_ROWS:
            knobs += ["block_m", "block_n", "num_warps"]
        return order_by(config, *knobs, mma=expected_mma(problem, config, arch) or "none")

    def problems(
        self, shape: ModelShape, dtype: str, block_sizes: tuple[int, ...]
    ) -> list[DequantGemmProblem]:
        """Every linear with 4 bits and zero points, and with 8 bits, symmetric; groups of 128."""
        return [
            DequantGemmProblem(
                dtype=dtype,
                bits=bits,
                group_size=128,
                zero_point=zero_point,
                n=linear.n,
                k=linear.k,
            )
            for bits, zero_point in ((4, True), (8, False))
            for linear in shape.linears()
        ]

    def points(self, cell: DequantGemmProblem) -> list[DequantGemmProblem]:
        """From one sequence decoding to a chunk of a prompt."""
        return [cell.at(m=m) for m in (1, 4, 16, 64, 256, 1024)]

    def hard_problems(self) -> list[DequantGemmProblem]:
        """Every group size, both zeros, N and K that nothing divides, one element, no rows."""
        return dequant_gemm_problem.hard_problems()

    def make_inputs(self, problem: DequantGemmProblem, seed: int, device: str) -> Inputs:
        """Random levels, scales and zeros, the extreme zeros among them."""
        return dequant_gemm_problem.make_inputs(problem, seed, device)

    def bench_inputs(self, problem: DequantGemmProblem, seed: int, device: str) -> Inputs:
        """Random bytes, scales and zeros drawn on the device, nothing poisoned."""
        return dequant_gemm_problem.bench_inputs(problem, seed, device)

    def reference(self, problem: DequantGemmProblem, inputs: Inputs) -> torch.Tensor:
        """Unpack and dequantise the whole matrix, then one product in fp64: [m, n]."""
        return dequant_gemm_problem.reference(problem, inputs)

    def run(self, module: ModuleType, problem: DequantGemmProblem, inputs: Inputs) -> torch.Tensor:
        """Launch and return `out`."""
        module.launch(**inputs)
        out: torch.Tensor = inputs["out"]
        return out

    def values(
        self, problem: DequantGemmProblem, inputs: Inputs, out: torch.Tensor
    ) -> torch.Tensor:
        """The output as it is."""
        return out

    def tolerance(self, problem: DequantGemmProblem) -> Tolerance:
        """A dequantised weight is rounded once at most, and the output once."""
        epsilon = MACHINE_EPSILON[problem.dtype] + ACCUMULATION_ERROR
        return Tolerance(relative=2 * epsilon, elementwise=4 * epsilon)


def _entry(config: Config) -> str:
    return {"gemv": "dequant_gemv", "gemm": "dequant_gemm", "split_k": "dequant_gemm_split"}[
        str(config["kind"])
    ]


def _magic(problem: DequantGemmProblem, matrix: bool) -> tuple[str, Mapping[str, Any] | None]:
    """Dtype of (q - z) * s, and the power of two whose low mantissa bits become q.

    In fp16 the bits of 1024 + q are those of 1024 or-ed with q, for all q below 1024; bf16
    has 7 such bits, so 128 + q serves 4 bits only.
    """
    half = {"dtype": "tl.float16", "value": 1024, "bits": 0x6400}
    if not matrix:
        return "tl.float32", half
    if problem.dtype == "fp32":
        return "tl.float32", None
    if problem.dtype == "fp16":
        return "tl.float16", half
    if problem.bits == 8:
        return "tl.float32", half
    brain = {"dtype": "tl.bfloat16", "value": 128, "bits": 0x4300}
    return "tl.bfloat16", brain
