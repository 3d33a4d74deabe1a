"""The two GEMMs of a gated MLP: gate-up with its activation, and the down projection."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from autotune.arch import GpuArch
from autotune.config import Config, KnobValue
from autotune.kernels import fused_mlp_problem
from autotune.kernels.amd_options import compile_options
from autotune.kernels.dtypes import (
    ACCUMULATION_ERROR,
    DTYPE_BYTES,
    MACHINE_EPSILON,
    dot_precision,
)
from autotune.kernels.fused_mlp_problem import FusedMlpProblem
from autotune.kernels.fused_mlp_space import VARIANTS, expected_mma, fused_mlp_space
from autotune.kernels.reduction import order_by
from autotune.kernels.spec import Inputs, Tolerance, Work
from autotune.knob import plain_values
from autotune.model_shape import ModelShape
from autotune.space import SearchSpace

if TYPE_CHECKING:
    import torch

REDUCE_BLOCK = 512
"""Outputs of one program of the kernel that adds the ranges of K."""


class FusedMlp:
    """Template `fused_mlp.py.jinja`."""

    name: ClassVar[str] = "fused_mlp"
    template: ClassVar[str] = "fused_mlp.py.jinja"
    problem_type = FusedMlpProblem

    def space(self, problem: FusedMlpProblem, arch: GpuArch) -> SearchSpace:
        """See `fused_mlp_space`."""
        return fused_mlp_space(problem, arch)

    def default_config(self, problem: FusedMlpProblem, arch: GpuArch) -> Config:
        """What a library of hand-written GEMMs runs: square tiles, narrow ones for few tokens.

        K is split where the tiles of few tokens cover less than half of the GPU.
        """
        if problem.k % 16 or problem.dtype == "fp32":
            # Loads or products one element at a time: large tiles would not fit the registers.
            tile, warps, stages, group_m = (16 if problem.m <= 16 else 64, 32, 32), 4, 3, 8
        elif problem.m <= 16:
            tile, warps, stages, group_m = (16, 64, 64), 4, 5, 1
        elif problem.m <= 64:
            tile, warps, stages, group_m = (64, 64, 64), 4, 4, 1
        else:
            tile, warps, stages, group_m = (128, 128 // problem.halves, 64), 8, 3, 8
        wanted: dict[str, KnobValue] = dict(
            zip(("block_m", "block_n", "block_k"), tile, strict=True)
        )
        wanted |= {"num_warps": warps, "num_stages": stages, "group_m": group_m}
        wanted |= {"swap_ab": False, "schedule": "tiles"}
        if problem.gated:
            wanted |= {"gate_layout": "two_dots"}
        else:
            tiles = math.ceil(problem.m / tile[0]) * math.ceil(problem.n / tile[1])
            split = problem.m <= 64 and 2 * tiles <= arch.sm_count
            ranges = (4 if 4 * tiles <= arch.sm_count else 2) if split else 1
            wanted |= {"variant": "split_k" if split else "plain", "num_splits": ranges}
        return self.space(problem, arch).closest(wanted)

    def template_values(self, problem: FusedMlpProblem, config: Config) -> Mapping[str, Any]:
        """Whether BLOCK_K divides K, dot precision, the entry point and its odd arguments."""
        odd_sizes = [name for name in ("n", "k") if getattr(problem, name) % 16]
        return {
            "even_k": problem.k % config.number("block_k") == 0,
            "dot_precision": dot_precision(problem.dtype),
            "entry": self._entry(problem, config),
            "reduce_block": REDUCE_BLOCK,
            "unaligned": ["m", "group_m", *odd_sizes],
            "options": compile_options(config),
            **plain_values(VARIANTS, config),
        }

    @staticmethod
    def _entry(problem: FusedMlpProblem, config: Config) -> str:
        if problem.gated:
            return "fused_mlp_gate_up"
        return "fused_mlp_down_split" if config["variant"] == "split_k" else "fused_mlp_down"

    def work(self, problem: FusedMlpProblem, config: Config, arch: GpuArch) -> tuple[Work, ...]:
        """One program per tile (and range of K), or one per SM; then the sum over ranges."""
        m, n, k, size = problem.m, problem.n, problem.k, DTYPE_BYTES[problem.dtype]
        block_m, block_n, block_k = (
            config.number(name) for name in ("block_m", "block_n", "block_k")
        )
        splits = 1 if problem.gated else config.number("num_splits")
        weight_rows = problem.halves * block_n
        steps = math.ceil(k / block_k)
        tiles = math.ceil(m / block_m) * math.ceil(n / block_n)
        grid, longest = tiles * splits, math.ceil(steps / splits)
        if config["schedule"] == "persistent":
            grid = min(tiles, arch.sm_count)
            longest = steps * math.ceil(tiles / max(1, grid))
        atomic = config.get("reduction") == "atomic"
        apart = splits > 1 and not atomic
        added_bytes = problem.output_bytes * splits if atomic else 0.0
        partial_bytes = 4.0 * splits * m * n if apart else 0.0
        # Partial sums are read back at once: they reach memory only where L2 is too small for them.
        evicted_bytes = partial_bytes if partial_bytes > arch.l2_bytes else 0.0
        main = Work(
            entry=self._entry(problem, config),
            grid=grid,
            loop_steps=steps * tiles / max(1, grid),
            longest_steps=longest,
            flops=2.0 * tiles * block_m * weight_rows * steps * block_k,
            matrix_dtype=problem.dtype,
            dram_bytes=problem.operand_bytes + (evicted_bytes if apart else problem.output_bytes),
            l2_bytes=1.0 * tiles * (block_m + weight_rows) * k * size
            + (partial_bytes if apart else added_bytes or problem.output_bytes),
            step_bytes=1.0 * (block_m + weight_rows) * block_k * size,
            atomic_bytes=added_bytes,
            fills=1 if atomic else 0,
            tile=(weight_rows, block_m, block_k)
            if config["swap_ab"]
            else (block_m, weight_rows, block_k),
        )
        if not apart:
            return (main,)
        reduce = Work(
            entry="fused_mlp_down_reduce",
            grid=math.ceil(m * n / REDUCE_BLOCK),
            loop_steps=1.0,
            longest_steps=1.0,
            flops=0.0,
            matrix_dtype=None,
            dram_bytes=evicted_bytes + problem.output_bytes,
            l2_bytes=partial_bytes + problem.output_bytes,
            step_bytes=4.0 * splits * REDUCE_BLOCK,
        )
        return (main, reduce)

    def flops(self, problem: FusedMlpProblem) -> float:
        """2 m n k for each product."""
        return 2.0 * problem.m * problem.halves * problem.n * problem.k

    def min_bytes(self, problem: FusedMlpProblem) -> float:
        """Weights, input and residual in, output out; each once. Nothing without tokens."""
        return problem.operand_bytes + problem.output_bytes if problem.m else 0.0

    def expected_mma(self, problem: FusedMlpProblem, config: Config, arch: GpuArch) -> str | None:
        """See `fused_mlp_space.expected_mma`."""
        return expected_mma(problem, config, arch)

    def reduction_order(self, problem: FusedMlpProblem, config: Config, arch: GpuArch) -> Config:
        """Ranges and steps of K, and the matrix instruction that sums a step."""
        mma = expected_mma(problem, config, arch) or "none"
        knobs = ("variant", "num_splits", "block_k", "swap_ab", "gate_layout")
        return order_by(config, *knobs, mma=mma)

    def problems(
        self, shape: ModelShape, dtype: str, block_sizes: tuple[int, ...]
    ) -> list[FusedMlpProblem]:
        """Gate-up, if the model has a gate, and down; the KV block size plays no part.

        Down comes without a residual, which the norm after it adds.
        """
        hidden, intermediate = shape.hidden_size, shape.intermediate_size
        gate_up = FusedMlpProblem(dtype, "gate_up", shape.activation, False, intermediate, hidden)
        down = FusedMlpProblem(dtype, "down", "none", False, hidden, intermediate)
        return [gate_up, down] if shape.gated else [down]

    def points(self, cell: FusedMlpProblem) -> list[FusedMlpProblem]:
        """One token to a long prompt."""
        return [cell.at(m=m) for m in (1, 16, 64, 256, 1024, 4096)]

    def hard_problems(self) -> list[FusedMlpProblem]:
        """Sizes that no tile divides, each activation, with and without residual, no token."""
        return fused_mlp_problem.hard_problems()

    def make_inputs(self, problem: FusedMlpProblem, seed: int, device: str) -> Inputs:
        """Inputs between NaNs, the last token of gate-up loud; `out` is NaN."""
        return fused_mlp_problem.make_inputs(problem, seed, device)

    def bench_inputs(self, problem: FusedMlpProblem, seed: int, device: str) -> Inputs:
        """Normal inputs, nothing poisoned."""
        return fused_mlp_problem.bench_inputs(problem, seed, device)

    def reference(self, problem: FusedMlpProblem, inputs: Inputs) -> torch.Tensor:
        """Torch's matrix product and activations in fp64: [m, n]."""
        return fused_mlp_problem.reference(problem, inputs)

    def run(self, module: ModuleType, problem: FusedMlpProblem, inputs: Inputs) -> torch.Tensor:
        """Launch and return `out`."""
        module.launch(**inputs)
        out: torch.Tensor = inputs["out"]
        return out

    def values(self, problem: FusedMlpProblem, inputs: Inputs, out: torch.Tensor) -> torch.Tensor:
        """The output as it is."""
        return out

    def tolerance(self, problem: FusedMlpProblem) -> Tolerance:
        """One rounding to the output's dtype after sums in fp32."""
        epsilon = MACHINE_EPSILON[problem.dtype] + ACCUMULATION_ERROR
        return Tolerance(relative=2 * epsilon, elementwise=4 * epsilon)
