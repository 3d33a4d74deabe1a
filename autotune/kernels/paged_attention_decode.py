"""Decode attention: one query token per sequence over a paged KV cache, unsplit or split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from autotune.arch import GpuArch
from autotune.config import Config
from autotune.kernels import paged_attention_decode_problem
from autotune.kernels.amd_options import amd_knobs, compile_options
from autotune.kernels.attention_variants import (
    decode_constraints,
    decode_knobs,
    default_decode,
    variant_values,
)
from autotune.kernels.context_ranges import (
    CHUNK_KNOBS,
    NUM_SPLITS,
    RANGE_CONSTRAINTS,
    VARIANT,
    is_chunked,
    range_values,
    ranges_of,
)
from autotune.kernels.dtypes import DTYPE_BYTES, dot_precision, next_power_of_2
from autotune.kernels.paged_attention import PAGING_KNOBS, cells, paging_constraints, tolerance
from autotune.kernels.paged_attention_decode_problem import DecodeProblem
from autotune.kernels.reduction import order_by
from autotune.kernels.spec import Inputs, Tolerance, Work
from autotune.knob import Constraint, Knob
from autotune.model_shape import ModelShape
from autotune.space import SearchSpace

if TYPE_CHECKING:
    import torch


class PagedAttentionDecode:
    """Template `paged_attention_decode.py.jinja`."""

    name: ClassVar[str] = "paged_attention_decode"
    template: ClassVar[str] = "paged_attention_decode.py.jinja"
    problem_type = DecodeProblem

    def space(self, problem: DecodeProblem, arch: GpuArch) -> SearchSpace:
        """Tile, page lookup, prefetch, loop form, split, warps and pipeline stages."""
        block, padded = problem.block_size, next_power_of_2(problem.head_dim)
        kv_bytes = 2 * padded * problem.kv_number_bytes
        rows = max(16, next_power_of_2(problem.group))
        knobs = (
            VARIANT,
            *PAGING_KNOBS,
            Knob("num_warps", (1, 2, 4, 8), "warps per program"),
            Knob("num_stages", (1, 2, 3, 4, 5), "software pipeline depth"),
            NUM_SPLITS,
            *decode_knobs(problem),
        )
        constraints = (
            *paging_constraints(block),
            *decode_constraints(problem, arch),
            Constraint(
                "each warp needs eight keys of a tile",
                ("tile", "num_warps"),
                lambda tile, warps: tile >= 8 * warps,
            ),
            Constraint(
                "without prefetch stages come in pairs: 3 and 4, 5 and 6 are one binary",
                ("prefetch", "num_stages"),
                lambda prefetch, stages: prefetch or stages != 4,
            ),
            Constraint(
                "pipelined tiles exceed shared memory",
                ("tile", "num_stages"),
                lambda tile, stages: (
                    max(1, stages - 2) * tile * kv_bytes <= arch.shared_bytes_per_block
                ),
            ),
            Constraint(
                "accumulator and scores exceed the register file",
                ("tile", "num_warps"),
                lambda tile, warps: (
                    rows * (padded + 2 * tile)
                    <= arch.warp_size * warps * (arch.max_registers_per_thread - 32)
                ),
            ),
            *RANGE_CONSTRAINTS,
        )
        return SearchSpace(knobs, constraints, (*amd_knobs(arch), *CHUNK_KNOBS))

    def default_config(self, problem: DecodeProblem, arch: GpuArch) -> Config:
        """What a hand-written serving kernel uses: 32-token tiles, 4 warps, splits to fill the GPU.

        The split rule is the usual one (as in FlashAttention's heuristic): unsplit once programs
        cover 80 % of the SMs, else enough ranges for one wave, at least 256 tokens each.
        """
        programs = problem.num_seqs * problem.num_kv_heads
        splits = 1
        if programs < 0.8 * arch.sm_count:
            wanted = max(1, arch.sm_count // max(1, programs))
            longest = max(1, problem.context_len // 256)
            splits = min(64, 1 << (min(wanted, longest).bit_length() - 1))
        return self.space(problem, arch).closest(
            {
                "variant": "unsplit" if splits == 1 else "split",
                "tile": 32,
                "lookup": "scalar" if problem.block_size >= 32 else "gather",
                "prefetch": False,
                "tail": "masked",
                "num_warps": 4,
                "num_stages": 3,
                "num_splits": splits,
                **default_decode(problem, arch),
            }
        )

    def template_values(self, problem: DecodeProblem, config: Config) -> Mapping[str, Any]:
        """Padded sizes, dot precision and the main entry point's name."""
        return {
            "options": compile_options(config),
            "head_dim_padded": next_power_of_2(problem.head_dim),
            "group_padded": max(16, next_power_of_2(problem.group)),
            "dot_precision": dot_precision(problem.dtype),
            "entry": f"paged_attention_decode_{config['variant']}",
            **range_values(config),
            **variant_values(problem, config),
        }

    def work(self, problem: DecodeProblem, config: Config, arch: GpuArch) -> tuple[Work, ...]:
        """One program per sequence, KV head and range; then one merge program per head."""
        size = DTYPE_BYTES[problem.dtype]
        tile = config.number("tile")
        seen = problem.tokens_seen
        tiles = math.ceil(seen / tile)
        ranges = ranges_of(config, tiles)
        splits = ranges.count
        pairs = problem.num_seqs * problem.num_kv_heads
        padded = next_power_of_2(problem.head_dim)
        rows = max(16, next_power_of_2(problem.group))
        kv_bytes = pairs * seen * problem.token_bytes + problem.head_scales_bytes
        q_bytes = 1.0 * pairs * problem.group * problem.head_dim * size
        merged = ranges.are_merged
        partial_bytes = 4.0 * pairs * problem.group * splits * (padded + 2) if merged else 0.0
        main = Work(
            entry=f"paged_attention_decode_{config['variant']}",
            grid=pairs * splits,
            loop_steps=tiles / splits,
            longest_steps=ranges.longest,
            flops=4.0 * pairs * rows * padded * tiles * tile,
            matrix_dtype=problem.dtype,
            dram_bytes=kv_bytes + q_bytes + (0.0 if merged else q_bytes),
            l2_bytes=kv_bytes + q_bytes * (splits + 1) + partial_bytes,
            step_bytes=tile * problem.token_bytes,
            tile=(rows, tile, 64),
            stored_bytes=problem.kv_number_bytes if problem.quantised else None,
        )
        if not merged:
            return (main,)
        merge = Work(
            entry="paged_attention_decode_merge",
            grid=pairs * problem.group,
            loop_steps=math.ceil(splits / 8),
            longest_steps=math.ceil(splits / 8),
            flops=0.0,
            matrix_dtype=None,
            dram_bytes=q_bytes,
            l2_bytes=partial_bytes + q_bytes,
            step_bytes=4.0 * 8 * (padded + 2),
        )
        return (main, merge)

    def flops(self, problem: DecodeProblem) -> float:
        """4 · heads · head_dim per token seen."""
        heads = problem.num_kv_heads * problem.group
        return 4.0 * problem.num_seqs * heads * problem.head_dim * problem.tokens_seen

    def min_bytes(self, problem: DecodeProblem) -> float:
        """Keys and values once; queries in, outputs out."""
        kv = problem.num_kv_heads * problem.tokens_seen * problem.token_bytes
        q_and_out = 2.0 * problem.num_kv_heads * problem.group * problem.head_dim
        q_and_out *= DTYPE_BYTES[problem.dtype]
        return problem.num_seqs * (kv + q_and_out) + problem.head_scales_bytes

    def expected_mma(self, problem: DecodeProblem, config: Config, arch: GpuArch) -> str | None:
        """Sixteen rows are warp-level matrix instructions everywhere."""
        if problem.dtype == "fp32":
            return None
        return "mfma" if arch.vendor == "amd" else "mma"

    def reduction_order(self, problem: DecodeProblem, config: Config, arch: GpuArch) -> Config:
        """Ranges and tiles of a context, and the warps that a tile's weights are summed over.

        Ranges are cut by a sequence's own length. Masked and whole tiles are told apart by it, too;
        but they are two loops, in which a compiler may fuse multiplies and adds differently.
        """
        names = ["variant", "num_splits", "tile", "tail", "num_warps", "fp8_decode"]
        if is_chunked(config):  # plain values are not named, as configurations may leave them out
            names += ["cut", "chunk_tokens"]
        return order_by(config, *names)

    def problems(
        self, shape: ModelShape, dtype: str, block_sizes: tuple[int, ...]
    ) -> list[DecodeProblem]:
        """One cell per KV block size."""
        return cells(DecodeProblem, shape, dtype, block_sizes)

    def points(self, cell: DecodeProblem) -> list[DecodeProblem]:
        """Batches of 1 to 128 over contexts of 512 to 32,768 tokens."""
        return [
            cell.at(num_seqs=num_seqs, context_len=context_len)
            for num_seqs in (1, 8, 32, 128)
            for context_len in (512, 2048, 8192, 32768)
        ]

    def hard_problems(self) -> list[DecodeProblem]:
        """See `paged_attention_decode_problem`."""
        return paged_attention_decode_problem.hard_problems()

    def make_inputs(self, problem: DecodeProblem, seed: int, device: str) -> Inputs:
        """Ragged and poisoned, see `paged_attention_decode_problem`."""
        return paged_attention_decode_problem.make_inputs(problem, seed, device)

    def bench_inputs(self, problem: DecodeProblem, seed: int, device: str) -> Inputs:
        """All sequences `context_len` long."""
        return paged_attention_decode_problem.bench_inputs(problem, seed, device)

    def reference(self, problem: DecodeProblem, inputs: Inputs) -> torch.Tensor:
        """Sequence by sequence, in fp64: [num_seqs, num_heads, head_dim]."""
        return paged_attention_decode_problem.reference(problem, inputs)

    def run(self, module: ModuleType, problem: DecodeProblem, inputs: Inputs) -> torch.Tensor:
        """Launch and return `out`."""
        module.launch(**inputs)
        out: torch.Tensor = inputs["out"]
        return out

    def values(self, problem: DecodeProblem, inputs: Inputs, out: torch.Tensor) -> torch.Tensor:
        """The output as it is."""
        return out

    def tolerance(self, problem: DecodeProblem) -> Tolerance:
        """See `paged_attention.tolerance`."""
        return tolerance(problem)
