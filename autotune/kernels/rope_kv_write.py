"""Rotary embedding of queries and keys, with the write of keys and values into the paged cache."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from autotune.arch import GpuArch
from autotune.config import Config
from autotune.kernels import rope_kv_write_inputs, rope_kv_write_problem
from autotune.kernels.dtypes import DTYPE_BYTES, MACHINE_EPSILON, next_power_of_2
from autotune.kernels.quantisation import code_values, quantised_tolerance
from autotune.kernels.rope_kv_write_problem import RopeProblem
from autotune.kernels.spec import Inputs, Tolerance, Work
from autotune.knob import Constraint, Knob
from autotune.model_shape import ModelShape
from autotune.space import SearchSpace

if TYPE_CHECKING:
    import torch

_KNOBS = (
    Knob("block_heads", (1, 2, 4, 8, 16, 32), "heads per program, all of one token"),
    Knob("num_warps", (1, 2, 4, 8), "warps per program"),
)
_ARGUMENTS = (
    *("rotated", "q", "k", "v", "k_cache", "v_cache", "k_scale", "v_scale", "slots", "positions"),
    "table",
)
"""Of a launch, in order; each variant lacks some."""
_PER_THREAD = 32
"""Most elements of one tile of heads that a thread holds."""
_HEAD_TOLERANCES = {"int8": Tolerance(0.03, 0.03), "fp8": Tolerance(0.03, 2.0**-4)}
"""With scales that do not follow the token, up to four times as large as they need be: steps of
int8 are as much larger, and fp8's are relative to each number."""


class RopeKvWrite:
    """Template `rope_kv_write.py.jinja`."""

    name: ClassVar[str] = "rope_kv_write"
    template: ClassVar[str] = "rope_kv_write.py.jinja"
    problem_type = RopeProblem

    def space(self, problem: RopeProblem, arch: GpuArch) -> SearchSpace:
        """Heads per program and warps."""
        padded = next_power_of_2(problem.head_dim)
        fits = Constraint(
            "a thread holds 1 to 32 elements",
            ("block_heads", "num_warps"),
            lambda heads, warps: 1 <= heads * padded / (warps * arch.warp_size) <= _PER_THREAD,
        )
        return SearchSpace(_KNOBS, (fits,))

    def default_config(self, problem: RopeProblem, arch: GpuArch) -> Config:
        """Four heads per program, 16 bytes or more per thread."""
        warps = max(1, 4 * next_power_of_2(problem.head_dim) // (8 * arch.warp_size))
        return self.space(problem, arch).closest({"block_heads": 4, "num_warps": min(8, warps)})

    def template_values(self, problem: RopeProblem, config: Config) -> Mapping[str, Any]:
        """Padded sizes, constants of the codes, the entry point and its odd arguments."""
        strides = ["k_token", "k_head", "v_token", "v_head", "page", "token", "kv_head"]
        counts = ["num_kv_heads", "block_size"]
        if problem.rotated:
            strides += ["out_token", "out_head", "q_token", "q_head"]
            counts += ["num_heads"]
        odd = [f"stride_{name}" for name in strides] if problem.head_dim % 16 else []
        return {
            **(code_values(problem.kv_dtype) if problem.kv_dtype != "same" else {}),
            "entry": self._entry(problem),
            "rotary_dim": problem.rotary_dim,
            "head_dim_padded": next_power_of_2(problem.head_dim),
            "half_padded": next_power_of_2(problem.rotary_dim // 2),
            "rest": problem.unrotated,
            "rest_padded": next_power_of_2(problem.unrotated),
            "unaligned": [*counts, *odd],
        }

    @staticmethod
    def _entry(problem: RopeProblem) -> str:
        return "rope_kv_write" if problem.rotated else "kv_write"

    def work(self, problem: RopeProblem, config: Config, arch: GpuArch) -> tuple[Work, ...]:
        """A program per token and block of query heads, or of KV heads."""
        heads = config.number("block_heads")
        groups = math.ceil(problem.num_kv_heads / heads)
        if problem.rotated:
            groups += math.ceil(problem.num_heads / heads)
        angles = DTYPE_BYTES[problem.dtype] * problem.rotary_dim
        return (
            Work(
                entry=self._entry(problem),
                grid=problem.num_tokens * groups,
                loop_steps=1.0,
                longest_steps=1.0,
                flops=self.flops(problem),
                matrix_dtype=None,
                dram_bytes=self.min_bytes(problem),
                l2_bytes=self.min_bytes(problem) + 1.0 * problem.num_tokens * (groups - 1) * angles,
                step_bytes=1.0 * heads * problem.head_dim * DTYPE_BYTES[problem.dtype],
            ),
        )

    def flops(self, problem: RopeProblem) -> float:
        """Three for each number that turns, four for each that is quantised."""
        heads = problem.num_heads + problem.num_kv_heads
        turned = 3.0 * problem.num_tokens * heads * problem.rotary_dim
        return turned + (4.0 * problem.kv_numbers if problem.kv_dtype != "same" else 0.0)

    def min_bytes(self, problem: RopeProblem) -> float:
        """Queries in and out, keys and values in and out, angles, positions and slots in."""
        angles = DTYPE_BYTES[problem.dtype] * problem.rotary_dim
        places = 16 if problem.rotated else 8
        return 2 * problem.query_bytes + problem.kv_bytes + problem.num_tokens * (angles + places)

    def expected_mma(self, problem: RopeProblem, config: Config, arch: GpuArch) -> str | None:
        """Nothing for the matrix unit."""
        return None

    def reduction_order(self, problem: RopeProblem, config: Config, arch: GpuArch) -> Config:
        """Nothing is summed."""
        return Config({})

    def problems(
        self, shape: ModelShape, dtype: str, block_sizes: tuple[int, ...]
    ) -> list[RopeProblem]:
        """Whole heads that turn, into a cache of the same type; the block size plays no part."""
        return [
            RopeProblem(
                dtype,
                head_dim=shape.head_dim,
                num_heads=shape.num_heads,
                num_kv_heads=shape.num_kv_heads,
            )
        ]

    def points(self, cell: RopeProblem) -> list[RopeProblem]:
        """One token to a long prompt."""
        return [cell.at(num_tokens=tokens) for tokens in (1, 16, 64, 256, 1024, 4096)]

    def hard_problems(self) -> list[RopeProblem]:
        """No token, odd heads and dims, parts that do not turn, every style, codes and scale."""
        return rope_kv_write_problem.hard_problems()

    def make_inputs(self, problem: RopeProblem, seed: int, device: str) -> Inputs:
        """Packed heads between NaNs; slots to be written are poison, others must stay."""
        return rope_kv_write_inputs.make_inputs(problem, seed, device)

    def bench_inputs(self, problem: RopeProblem, seed: int, device: str) -> Inputs:
        """Normal numbers; tokens fill a pool in random order."""
        return rope_kv_write_inputs.bench_inputs(problem, seed, device)

    def reference(self, problem: RopeProblem, inputs: Inputs) -> torch.Tensor:
        """Complex products in fp64; queries, then the pools: [rows, head_dim]."""
        return rope_kv_write_inputs.reference(problem, inputs)

    def run(self, module: ModuleType, problem: RopeProblem, inputs: Inputs) -> torch.Tensor:
        """Launch and return the buffer of all outputs."""
        module.launch(*(inputs[name] for name in _ARGUMENTS if name in inputs))
        out: torch.Tensor = inputs["out"]
        return out

    def values(self, problem: RopeProblem, inputs: Inputs, out: torch.Tensor) -> torch.Tensor:
        """Queries, then what the pools stand for: [rows, head_dim]."""
        return rope_kv_write_inputs.values(problem, inputs)

    def tolerance(self, problem: RopeProblem) -> Tolerance:
        """One rounding after fp32; half a step of codes."""
        if problem.kv_scale == "head":
            return _HEAD_TOLERANCES[problem.kv_dtype]
        if problem.kv_scale == "token":
            return quantised_tolerance(problem.kv_dtype, problem.dtype)
        epsilon = MACHINE_EPSILON[problem.dtype]
        return Tolerance(relative=2 * epsilon, elementwise=4 * epsilon)
