"""Linear layer over weights of 4 or 8 bits: GEMV, GEMM, and either with K split over programs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from autotune.arch import GpuArch
from autotune.errors import UsageError
from autotune.kernels.byte_split import (
    CELL_BYTES,
    K_MULTIPLE,
    QuantisedWeights,
    dequantise,
    num_cells,
    num_groups,
    pack,
)
from autotune.kernels.dtypes import (
    ACCUMULATION_ERROR,
    DTYPE_BYTES,
    FLOAT_DTYPES,
    MACHINE_EPSILON,
    dot_precision,
    torch_dtype,
)
from autotune.kernels.spec import Inputs, Tolerance, Work
from autotune.model_shape import ModelShape
from autotune.problem import Problem, exact, nearest
from autotune.space import Config, Constraint, Knob, KnobValue, SearchSpace

if TYPE_CHECKING:
    import torch

_MATRIX_ROWS = 16
"""Fewer rows than this are summed without the matrix unit."""


@dataclass(frozen=True)
class DequantGemmProblem(Problem):
    """out [m, n] = x [m, k] times the transpose of quantised weights [n, k]."""

    kernel: ClassVar[str] = "dequant_gemm"

    dtype: str = exact("bf16", "dtype of activations, scales, zeros and output", FLOAT_DTYPES)
    bits: int = exact(4, "bits of a weight", (4, 8))
    group_size: int = exact(128, "k's that share a scale, 0 for all of them", (0, 32, 64, 128))
    zero_point: bool = exact(True, "a zero per group; without, it is 2^(bits - 1)")
    n: int = exact(4096, "output features")
    k: int = exact(4096, "input features")
    m: int = nearest(16, "rows of x (tokens)")

    def __post_init__(self) -> None:
        """Refuse a matrix without elements."""
        super().__post_init__()
        if not (self.n and self.k):
            raise UsageError(f"n={self.n}, k={self.k}: must be at least 1")

    @property
    def k_padded(self) -> int:
        """K as stored: a multiple of 32."""
        return math.ceil(self.k / K_MULTIPLE) * K_MULTIPLE

    @property
    def weight_bytes(self) -> int:
        """Packed weights, padding included."""
        return self.n * self.k_padded * self.bits // 8

    @property
    def group_bytes(self) -> int:
        """Scales and zeros."""
        tables = 2 if self.zero_point else 1
        return num_groups(self.k, self.group_size) * self.n * tables * DTYPE_BYTES[self.dtype]


class DequantGemm:
    """Template `dequant_gemm.py.jinja`."""

    name: ClassVar[str] = "dequant_gemm"
    template: ClassVar[str] = "dequant_gemm.py.jinja"
    problem_type = DequantGemmProblem

    def space(self, problem: DequantGemmProblem, arch: GpuArch) -> SearchSpace:
        """Kind, tile, operand order, where scales apply, split, warps and pipeline stages."""
        size, bits, group = DTYPE_BYTES[problem.dtype], problem.bits, problem.group_size
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
            return block_m >= _MATRIX_ROWS

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
                    max(1, stages - 1) * block_k * (block_n * bits / 8 + block_m * size)
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
        )
        return SearchSpace(knobs, constraints)

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
            tile |= {"dequant": "scale_after", "num_warps": 4, "num_stages": 1}
        elif m < 64:
            block_m = 16 if m <= 16 else 32
            tiles = math.ceil(m / block_m) * math.ceil(problem.n / 64)
            while splits < 16 and tiles * splits < 2 * arch.sm_count:
                splits *= 2
            tile = {"kind": "split_k", "block_m": block_m, "block_n": 64, "block_k": 64}
            tile |= {"dequant": "sub_mul", "num_warps": 4, "num_stages": 3}
            splits = max(2, splits)
        else:
            rows, columns = (64, 64) if m < 256 else (128, 64)
            tile = {"kind": "gemm", "block_m": rows, "block_n": columns, "block_k": 64}
            tile |= {"dequant": "sub_mul", "num_warps": 4, "num_stages": 3}
        wanted = {**tile, "swap_ab": False, "weight_eviction": "", "split_k": splits}
        space = self.space(problem, arch)
        # Most often legal as it is, and then nothing has to be listed.
        return Config(wanted) if space.why_illegal(wanted) is None else space.closest(wanted)

    def template_values(self, problem: DequantGemmProblem, config: Config) -> Mapping[str, Any]:
        """Entry point, groups per step, how integers become floats, and what is aligned.

        N and K are run-time arguments: only their divisibility enters the source.
        """
        block_k, group = config.number("block_k"), problem.group_size
        matrix = config.number("block_m") >= _MATRIX_ROWS
        name, magic = _magic(problem, matrix)
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
        }

    def work(self, problem: DequantGemmProblem, config: Config, arch: GpuArch) -> tuple[Work, ...]:
        """One program per tile of the output and range of K; then one per 512 split sums."""
        size, splits = DTYPE_BYTES[problem.dtype], config.number("split_k")
        block_m, block_n = config.number("block_m"), config.number("block_n")
        block_k = config.number("block_k")
        matrix = block_m >= _MATRIX_ROWS
        row_tiles = math.ceil(problem.m / block_m)
        column_tiles = math.ceil(problem.n / block_n)
        steps = math.ceil(problem.k / block_k)
        weight_bytes = 1.0 * problem.weight_bytes + problem.group_bytes
        x_bytes = 1.0 * problem.m * problem.k * size
        out_bytes = 1.0 * problem.m * problem.n * size
        partial_bytes = 4.0 * problem.m * problem.n * splits if splits > 1 else 0.0
        tables = 2 if problem.zero_point else 1
        group_rows = math.ceil(block_k / problem.group_size) if problem.group_size else 0
        main = Work(
            entry=_entry(config),
            grid=row_tiles * column_tiles * splits,
            loop_steps=steps / splits,
            longest_steps=math.ceil(steps / splits),
            flops=2.0 * row_tiles * block_m * column_tiles * block_n * steps * block_k,
            matrix_dtype=problem.dtype if matrix else None,
            dram_bytes=weight_bytes + x_bytes + (0.0 if splits > 1 else out_bytes),
            l2_bytes=row_tiles * weight_bytes
            + column_tiles * x_bytes
            + (partial_bytes if splits > 1 else out_bytes),
            step_bytes=block_n * block_k * problem.bits / 8
            + block_m * block_k * size
            + block_n * group_rows * tables * size,
        )
        if splits == 1:
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
        block_m, block_n = config.number("block_m"), config.number("block_n")
        if problem.dtype == "fp32" or block_m < _MATRIX_ROWS:
            return None
        if arch.vendor == "amd":
            return "mfma"
        wide = (block_n if config["swap_ab"] else block_m) >= 64 and config.number("num_warps") >= 4
        return {90: "wgmma", 100: "tcgen05"}.get(arch.capability, "mma") if wide else "mma"

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
        shapes: list[dict[str, Any]] = [
            {"bits": 4, "group_size": 32, "zero_point": True, "n": 48, "k": 96, "m": 3},
            {"bits": 4, "group_size": 64, "zero_point": True, "n": 64, "k": 192, "m": 17},
            {"bits": 4, "group_size": 128, "zero_point": True, "n": 40, "k": 256, "m": 1},
            {"bits": 4, "group_size": 128, "zero_point": False, "n": 33, "k": 200, "m": 5},
            {"bits": 4, "group_size": 0, "zero_point": True, "n": 72, "k": 130, "m": 16},
            {"bits": 4, "group_size": 0, "zero_point": False, "n": 16, "k": 256, "m": 2},
            {"bits": 8, "group_size": 32, "zero_point": True, "n": 50, "k": 101, "m": 4},
            {"bits": 8, "group_size": 64, "zero_point": True, "n": 96, "k": 256, "m": 70},
            {"bits": 8, "group_size": 128, "zero_point": False, "n": 64, "k": 384, "m": 20},
            {"bits": 8, "group_size": 0, "zero_point": False, "n": 24, "k": 75, "m": 33},
            {"bits": 4, "group_size": 32, "zero_point": True, "n": 1, "k": 1, "m": 1},
            {"bits": 4, "group_size": 128, "zero_point": True, "n": 32, "k": 128, "m": 0},
        ]
        return [
            DequantGemmProblem(dtype=dtype, **shape)
            for dtype in ("fp16", "fp32")
            for shape in shapes
        ]

    def make_inputs(self, problem: DequantGemmProblem, seed: int, device: str) -> Inputs:
        """Random levels, scales and zeros, the extreme zeros among them.

        NaN follows every row of x and the last row of scales and zeros.
        """
        import torch

        generator = torch.Generator().manual_seed(seed)
        kind, top = torch_dtype(problem.dtype), (1 << problem.bits) - 1
        groups = num_groups(problem.k, problem.group_size)
        levels = torch.randint(
            0, top + 1, (problem.n, problem.k), generator=generator, dtype=torch.uint8
        )
        x = torch.full((problem.m, problem.k + 16), math.nan, dtype=kind)
        x[:, : problem.k] = torch.randn((problem.m, problem.k), generator=generator).to(kind)

        def guarded(rows: torch.Tensor) -> torch.Tensor:
            stored = torch.full((groups + 4, problem.n), math.nan, dtype=kind)
            stored[:groups] = rows.to(kind)
            return stored.to(device)[:groups]

        spread = 0.5 + torch.rand((groups, problem.n), generator=generator)
        inputs = {
            "out": torch.full((problem.m, problem.n), math.nan, dtype=kind, device=device),
            "x": x.to(device)[:, : problem.k],
            "packed": pack(levels.to(device), problem.bits),
            "scales": guarded(spread / (top * math.sqrt(problem.k))),
        }
        if problem.zero_point:
            zeros = torch.randint(0, top + 1, (groups, problem.n), generator=generator)
            zeros.view(-1)[0], zeros.view(-1)[-1] = top, 0
            inputs["zeros"] = guarded(zeros)
        return inputs

    def bench_inputs(self, problem: DequantGemmProblem, seed: int, device: str) -> Inputs:
        """Random bytes, scales and zeros drawn on the device, nothing poisoned."""
        import torch

        generator = torch.Generator(device).manual_seed(seed)
        kind, top = torch_dtype(problem.dtype), (1 << problem.bits) - 1
        cells = num_cells(problem.k, problem.bits)
        groups = (num_groups(problem.k, problem.group_size), problem.n)
        x = torch.empty((problem.m, problem.k), dtype=kind, device=device)
        scales = torch.rand(groups, generator=generator, device=device) + 0.5
        inputs = {
            "out": torch.empty((problem.m, problem.n), dtype=kind, device=device),
            "x": x.normal_(generator=generator),
            "packed": torch.randint(
                0,
                256,
                (cells, problem.n, CELL_BYTES),
                dtype=torch.uint8,
                generator=generator,
                device=device,
            ),
            "scales": (scales / (top * math.sqrt(problem.k))).to(kind),
        }
        if problem.zero_point:
            zeros = torch.randint(0, top + 1, groups, generator=generator, device=device)
            inputs["zeros"] = zeros.to(kind)
        return inputs

    def reference(self, problem: DequantGemmProblem, inputs: Inputs) -> torch.Tensor:
        """Unpack and dequantise the whole matrix, then one product in fp64: [m, n]."""
        weights = QuantisedWeights(
            packed=inputs["packed"],
            scales=inputs["scales"],
            zeros=inputs.get("zeros"),
            bits=problem.bits,
            group_size=problem.group_size,
            n=problem.n,
            k=problem.k,
        )
        product: torch.Tensor = inputs["x"].double() @ dequantise(weights).T
        return product

    def run(self, module: ModuleType, problem: DequantGemmProblem, inputs: Inputs) -> torch.Tensor:
        """Launch and return `out`."""
        module.launch(**inputs)
        out: torch.Tensor = inputs["out"]
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
