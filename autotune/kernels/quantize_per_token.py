"""Dynamic quantisation of activations: a scale for each token, codes of int8 or fp8."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from autotune.arch import GpuArch
from autotune.config import Config
from autotune.errors import UsageError
from autotune.kernels.dtypes import DTYPE_BYTES, FLOAT_DTYPES, torch_dtype
from autotune.kernels.output_buffer import output_buffer
from autotune.kernels.quantisation import (
    CODES,
    code_dtype,
    code_values,
    dequantise,
    quantised_tolerance,
)
from autotune.kernels.row_inputs import draw_rows
from autotune.kernels.row_tiles import default_rows, is_whole, row_space, row_steps
from autotune.kernels.spec import Inputs, Tolerance, Work
from autotune.model_shape import ModelShape
from autotune.problem import Problem, exact, nearest
from autotune.space import SearchSpace

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class QuantizeProblem(Problem):
    """Rows of activations, each with a scale of its own."""

    kernel: ClassVar[str] = "quantize_per_token"

    dtype: str = exact("bf16", "dtype of activations", FLOAT_DTYPES)
    codes: str = exact("int8", "what they become", CODES)
    columns: int = exact(4096, "numbers of a token")
    rows: int = nearest(16, "tokens in the batch")

    def __post_init__(self) -> None:
        """Refuse rows of nothing."""
        super().__post_init__()
        if not self.columns:
            raise UsageError("columns=0: must be at least 1")


class QuantizePerToken:
    """Template `quantize_per_token.py.jinja`."""

    name: ClassVar[str] = "quantize_per_token"
    template: ClassVar[str] = "quantize_per_token.py.jinja"
    problem_type = QuantizeProblem

    def space(self, problem: QuantizeProblem, arch: GpuArch) -> SearchSpace:
        """See `row_space`."""
        return row_space(problem.columns, arch)

    def default_config(self, problem: QuantizeProblem, arch: GpuArch) -> Config:
        """See `default_rows`."""
        return default_rows(problem.columns, arch)

    def template_values(self, problem: QuantizeProblem, config: Config) -> Mapping[str, Any]:
        """Constants of the codes, whether rows are whole, and odd arguments."""
        odd = ["stride_row"] if problem.columns % 16 else []
        return {
            **code_values(problem.codes),
            "whole": is_whole(problem.columns, config),
            "unaligned": ["rows", *odd],
        }

    def work(self, problem: QuantizeProblem, config: Config, arch: GpuArch) -> tuple[Work, ...]:
        """A program per block of rows; rows in parts are read twice."""
        size, steps = DTYPE_BYTES[problem.dtype], row_steps(problem.columns, config, 2)
        block_rows, block_cols = config.number("block_rows"), config.number("block_cols")
        passes = 1 if is_whole(problem.columns, config) else 2
        return (
            Work(
                entry="quantize_per_token",
                grid=math.ceil(problem.rows / block_rows),
                loop_steps=steps,
                longest_steps=steps,
                flops=self.flops(problem),
                matrix_dtype=None,
                dram_bytes=self.min_bytes(problem),
                l2_bytes=self.min_bytes(problem)
                + (passes - 1.0) * problem.rows * problem.columns * size,
                step_bytes=1.0 * block_rows * block_cols * size,
            ),
        )

    def flops(self, problem: QuantizeProblem) -> float:
        """A magnitude, a maximum, a product and a rounding for each number."""
        return 4.0 * problem.rows * problem.columns

    def min_bytes(self, problem: QuantizeProblem) -> float:
        """Numbers in, codes and scales out."""
        return 1.0 * problem.rows * (problem.columns * (DTYPE_BYTES[problem.dtype] + 1) + 4)

    def expected_mma(self, problem: QuantizeProblem, config: Config, arch: GpuArch) -> str | None:
        """Nothing is multiplied."""
        return None

    def reduction_order(self, problem: QuantizeProblem, config: Config, arch: GpuArch) -> Config:
        """None: a largest magnitude is the same in any order."""
        return Config({})

    def problems(
        self, shape: ModelShape, dtype: str, block_sizes: tuple[int, ...]
    ) -> list[QuantizeProblem]:
        """What goes into a layer's products: hidden states, heads, and the MLP's inside."""
        widths = sorted({linear.k for linear in shape.linears()})
        return [QuantizeProblem(dtype, codes, width) for codes in CODES for width in widths]

    def points(self, cell: QuantizeProblem) -> list[QuantizeProblem]:
        """One token to a long prompt."""
        return [cell.at(rows=rows) for rows in (1, 16, 64, 256, 1024, 4096)]

    def hard_problems(self) -> list[QuantizeProblem]:
        """No row, single numbers, sizes that no tile divides, rows in parts."""
        sizes = ((0, 64), (1, 1), (3, 33), (17, 80), (5, 129), (2, 1500), (4, 96))
        return [
            QuantizeProblem(dtype, codes, columns, rows)
            for dtype, chosen in (("fp16", sizes), ("bf16", sizes[1::2]), ("fp32", sizes[::2]))
            for codes in CODES
            for rows, columns in chosen
        ]

    def make_inputs(self, problem: QuantizeProblem, seed: int, device: str) -> Inputs:
        """Rows between NaNs, some of zeros, some hardly above, some loud."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        x = draw_rows(problem.rows, problem.columns, problem.dtype, device, generator)
        x[1::5] = 0.0
        x[2::5] *= 1e-6 if problem.dtype == "fp16" else 1e-20
        x[3::5] *= 1e3
        return {**self._outputs(problem, device), "x": x}

    def bench_inputs(self, problem: QuantizeProblem, seed: int, device: str) -> Inputs:
        """Normal rows."""
        import torch

        generator = torch.Generator(device).manual_seed(seed)
        x = torch.empty(
            (problem.rows, problem.columns), dtype=torch_dtype(problem.dtype), device=device
        )
        return {**self._outputs(problem, device), "x": x.normal_(generator=generator)}

    @staticmethod
    def _outputs(problem: QuantizeProblem, device: str) -> Inputs:
        import torch

        shape = (problem.rows, problem.columns)
        return output_buffer(
            {
                "codes": (shape, code_dtype(problem.codes)),
                "scale": (shape[:1], torch.float32),
            },
            device,
        )

    def reference(self, problem: QuantizeProblem, inputs: Inputs) -> torch.Tensor:
        """The numbers themselves, fp64 [rows, columns]."""
        x: torch.Tensor = inputs["x"]
        return x.double()

    def run(self, module: ModuleType, problem: QuantizeProblem, inputs: Inputs) -> torch.Tensor:
        """Launch and return the buffer of codes and scales."""
        module.launch(inputs["codes"], inputs["scale"], inputs["x"])
        out: torch.Tensor = inputs["out"]
        return out

    def values(self, problem: QuantizeProblem, inputs: Inputs, out: torch.Tensor) -> torch.Tensor:
        """What the codes stand for: [rows, columns]."""
        return dequantise(inputs["codes"], inputs["scale"])

    def tolerance(self, problem: QuantizeProblem) -> Tolerance:
        """Half a step of the codes."""
        return quantised_tolerance(problem.codes, "fp32")
