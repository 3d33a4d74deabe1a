"""Root mean square norm of rows, with the residual added before and quantisation after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from autotune.arch import GpuArch
from autotune.config import Config
from autotune.errors import UsageError
from autotune.kernels.dtypes import (
    ACCUMULATION_ERROR,
    DTYPE_BYTES,
    FLOAT_DTYPES,
    MACHINE_EPSILON,
    torch_dtype,
)
from autotune.kernels.output_buffer import output_buffer
from autotune.kernels.quantisation import (
    CODES,
    code_dtype,
    code_values,
    dequantise,
    quantised_tolerance,
)
from autotune.kernels.reduction import order_by
from autotune.kernels.row_inputs import draw_rows, draw_vector
from autotune.kernels.row_tiles import default_rows, is_whole, row_space, row_steps
from autotune.kernels.spec import Inputs, Tolerance, Work
from autotune.model_shape import ModelShape
from autotune.problem import Problem, exact, nearest
from autotune.space import SearchSpace

if TYPE_CHECKING:
    import torch

EPS = 1e-5
"""Of the checks; an argument of the launch."""


@dataclass(frozen=True)
class RmsNormProblem(Problem):
    """Rows to be normed: tokens, or heads of tokens."""

    kernel: ClassVar[str] = "rms_norm"

    dtype: str = exact("bf16", "dtype of activations", FLOAT_DTYPES)
    columns: int = exact(4096, "numbers of a row")
    residual: bool = exact(False, "norm x + residual, and write that sum, too")
    wide_weight: bool = exact(False, "weight in fp32 and one rounding, as Gemma's 1 + w has it")
    quantised: str = exact("none", "codes of the output, with a scale per row", ("none", *CODES))
    rows: int = nearest(16, "rows in the batch")

    def __post_init__(self) -> None:
        """Refuse rows of nothing."""
        super().__post_init__()
        if not self.columns:
            raise UsageError("columns=0: must be at least 1")

    @property
    def numbers(self) -> int:
        """Of all rows."""
        return self.rows * self.columns


class RmsNorm:
    """Template `rms_norm.py.jinja`."""

    name: ClassVar[str] = "rms_norm"
    template: ClassVar[str] = "rms_norm.py.jinja"
    problem_type = RmsNormProblem

    def space(self, problem: RmsNormProblem, arch: GpuArch) -> SearchSpace:
        """See `row_space`."""
        return row_space(problem.columns, arch)

    def default_config(self, problem: RmsNormProblem, arch: GpuArch) -> Config:
        """See `default_rows`."""
        return default_rows(problem.columns, arch)

    def template_values(self, problem: RmsNormProblem, config: Config) -> Mapping[str, Any]:
        """Constants of the codes, whether rows are whole, and odd arguments."""
        strides = ["stride_outer", "stride_inner"] if problem.columns % 16 else []
        return {
            **(code_values(problem.quantised) if problem.quantised != "none" else {}),
            "whole": is_whole(problem.columns, config),
            "unaligned": ["rows", "inner", "eps", *strides],
        }

    def work(self, problem: RmsNormProblem, config: Config, arch: GpuArch) -> tuple[Work, ...]:
        """A program per block of rows; rows in parts are read again for each of two or three."""
        passes = 1 if is_whole(problem.columns, config) else 2 + (problem.quantised != "none")
        steps = row_steps(problem.columns, config, passes)
        block_rows, block_cols = config.number("block_rows"), config.number("block_cols")
        grid = math.ceil(problem.rows / block_rows)
        read = DTYPE_BYTES[problem.dtype] * (1 + problem.residual)
        weight = self._weight_bytes(problem)
        return (
            Work(
                entry="rms_norm",
                grid=grid,
                loop_steps=steps,
                longest_steps=steps,
                flops=self.flops(problem),
                matrix_dtype=None,
                dram_bytes=self.min_bytes(problem),
                l2_bytes=self.min_bytes(problem)
                + (passes - 1.0) * problem.numbers * read
                + (grid - 1.0) * weight,
                step_bytes=1.0 * block_rows * block_cols * read,
            ),
        )

    def flops(self, problem: RmsNormProblem) -> float:
        """A square, a sum, two products; an addition with a residual."""
        return (4.0 + problem.residual) * problem.numbers

    def min_bytes(self, problem: RmsNormProblem) -> float:
        """Rows and weight in, rows or codes out; with a residual one more row each way."""
        size = DTYPE_BYTES[problem.dtype]
        moved = size * (1 + 2 * problem.residual)
        if problem.quantised == "none":
            return problem.numbers * (moved + size) + self._weight_bytes(problem)
        return problem.numbers * (moved + 1.0) + 4 * problem.rows + self._weight_bytes(problem)

    @staticmethod
    def _weight_bytes(problem: RmsNormProblem) -> float:
        size = 4 if problem.wide_weight else DTYPE_BYTES[problem.dtype]
        return 1.0 * size * problem.columns if problem.rows else 0.0

    def expected_mma(self, problem: RmsNormProblem, config: Config, arch: GpuArch) -> str | None:
        """Nothing for the matrix unit."""
        return None

    def reduction_order(self, problem: RmsNormProblem, config: Config, arch: GpuArch) -> Config:
        """The spread of a row over parts and threads."""
        return order_by(config, "block_rows", "block_cols", "num_warps")

    def problems(
        self, shape: ModelShape, dtype: str, block_sizes: tuple[int, ...]
    ) -> list[RmsNormProblem]:
        """The norms between layers, with and without a residual."""
        return [RmsNormProblem(dtype, shape.hidden_size, residual) for residual in (False, True)]

    def points(self, cell: RmsNormProblem) -> list[RmsNormProblem]:
        """One token to a long prompt."""
        return [cell.at(rows=rows) for rows in (1, 16, 64, 256, 1024, 4096)]

    def hard_problems(self) -> list[RmsNormProblem]:
        """No row, single numbers, sizes that no tile divides, rows in parts, every variant."""
        rows = (
            (0, 64, False, False, "none"),
            (1, 1, False, False, "none"),
            (17, 80, False, False, "none"),
            (3, 33, True, False, "none"),
            (4, 96, True, True, "none"),
            (5, 129, False, True, "none"),
            (2, 1500, True, False, "none"),
            (1, 1100, False, True, "int8"),
            (3, 40, False, False, "int8"),
            (5, 72, True, False, "fp8"),
            (2, 1300, True, True, "fp8"),
        )
        return [
            RmsNormProblem(dtype, columns, residual, wide, codes, count)
            for dtype, chosen in (("fp16", rows), ("bf16", rows[::2]), ("fp32", rows[1::2]))
            for count, columns, residual, wide, codes in chosen
        ]

    def make_inputs(self, problem: RmsNormProblem, seed: int, device: str) -> Inputs:
        """Rows between NaNs, some of zeros, some loud or hardly there; weights around one."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        shape = (problem.rows, problem.columns)
        x = draw_rows(*shape, problem.dtype, device, generator)
        x[1::4] = 0.0
        x[2::4] *= 1e-3
        x[3::4] *= 50.0
        kind = "fp32" if problem.wide_weight else problem.dtype
        weight = draw_vector(problem.columns, kind, device, generator, mean=1.0)
        inputs = {**self._outputs(problem, device), "x": x, "weight": weight, "eps": EPS}
        if problem.residual:
            residual = torch.randn(shape, generator=generator)
            inputs["residual"] = residual.to(torch_dtype(problem.dtype)).to(device)
        return inputs

    def bench_inputs(self, problem: RmsNormProblem, seed: int, device: str) -> Inputs:
        """Normal rows."""
        import torch

        generator = torch.Generator(device).manual_seed(seed)
        kind = torch_dtype(problem.dtype)

        def draw(*shape: int, dtype: torch.dtype = kind) -> torch.Tensor:
            values = torch.empty(shape, dtype=dtype, device=device)
            return values.normal_(generator=generator)

        inputs = {**self._outputs(problem, device), "x": draw(problem.rows, problem.columns)}
        wide = torch.float32 if problem.wide_weight else kind
        inputs |= {"weight": draw(problem.columns, dtype=wide), "eps": EPS}
        if problem.residual:
            inputs["residual"] = draw(problem.rows, problem.columns)
        return inputs

    @staticmethod
    def _outputs(problem: RmsNormProblem, device: str) -> Inputs:
        import torch

        shape, kind = (problem.rows, problem.columns), torch_dtype(problem.dtype)
        pieces: dict[str, tuple[tuple[int, ...], torch.dtype]] = {"normed": (shape, kind)}
        if problem.quantised != "none":
            pieces["normed"] = (shape, code_dtype(problem.quantised))
            pieces["scale"] = (shape[:1], torch.float32)
        if problem.residual:
            pieces["total"] = (shape, kind)
        return output_buffer(pieces, device)

    def reference(self, problem: RmsNormProblem, inputs: Inputs) -> torch.Tensor:
        """The definition in fp64: [rows, columns]; with a residual, the sum's rows follow."""
        import torch

        total = inputs["x"].double()
        if problem.residual:
            total = total + inputs["residual"].double()
        mean = total.square().mean(-1, keepdim=True)
        normed = total / (mean + inputs["eps"]).sqrt() * inputs["weight"].double()
        return torch.cat((normed, total)) if problem.residual else normed

    def run(self, module: ModuleType, problem: RmsNormProblem, inputs: Inputs) -> torch.Tensor:
        """Launch and return the buffer of all outputs."""
        names = ("normed", "scale", "total", "residual", "x", "weight", "eps")
        module.launch(*(inputs[name] for name in names if name in inputs))
        out: torch.Tensor = inputs["out"]
        return out

    def values(self, problem: RmsNormProblem, inputs: Inputs, out: torch.Tensor) -> torch.Tensor:
        """Norms, then sums: [rows, columns], or [2 rows, columns] with a residual."""
        import torch

        normed: torch.Tensor = inputs["normed"]
        if problem.quantised != "none":
            normed = dequantise(normed, inputs["scale"])
        return torch.cat((normed, inputs["total"])) if problem.residual else normed

    def tolerance(self, problem: RmsNormProblem) -> Tolerance:
        """Roundings of the sum, the quotient and the product; half a step of codes."""
        if problem.quantised != "none":
            return quantised_tolerance(problem.quantised, problem.dtype)
        epsilon = MACHINE_EPSILON[problem.dtype] + ACCUMULATION_ERROR
        return Tolerance(relative=3 * epsilon, elementwise=6 * epsilon)
