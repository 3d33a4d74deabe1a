"""Prefill attention: any number of query tokens per sequence over a paged KV cache, causal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from autotune.arch import GpuArch
from autotune.config import Config
from autotune.kernels import paged_attention_prefill_problem
from autotune.kernels.amd_options import amd_knobs, compile_options
from autotune.kernels.attention_layout import AttentionLayout
from autotune.kernels.attention_variants import (
    decode_constraints,
    decode_knobs,
    default_decode,
    variant_values,
)
from autotune.kernels.causal_walk import CausalWalk, pairs_seen
from autotune.kernels.dtypes import DTYPE_BYTES, dot_precision, next_power_of_2
from autotune.kernels.paged_attention import PAGING_KNOBS, cells, paging_constraints, tolerance
from autotune.kernels.paged_attention_prefill_problem import PrefillProblem
from autotune.kernels.reduction import order_by
from autotune.kernels.spec import Inputs, Tolerance, Work
from autotune.knob import Constraint, Knob
from autotune.model_shape import ModelShape
from autotune.space import SearchSpace

if TYPE_CHECKING:
    import torch


_PAGING_KNOBS = tuple(
    dataclasses.replace(knob, unrepeatable=("split_loop",)) if knob.name == "tail" else knob
    for knob in PAGING_KNOBS
)
"""Of two loops, which one a tile is in depends on the rows beside a row, and compilers may fuse
multiplies and adds differently in each."""


class PagedAttentionPrefill:
    """Template `paged_attention_prefill.py.jinja`."""

    name: ClassVar[str] = "paged_attention_prefill"
    template: ClassVar[str] = "paged_attention_prefill.py.jinja"
    problem_type = PrefillProblem

    def space(self, problem: PrefillProblem, arch: GpuArch) -> SearchSpace:
        """Rows, tile, page lookup, prefetch, loop form, warps, pipeline stages and grid order."""
        layout = AttentionLayout(arch, problem.dtype, problem.head_dim, problem.kv_number_bytes)
        knobs = (
            Knob("block_m", (16, 32, 64, 128), "rows per program: query tokens times group"),
            *_PAGING_KNOBS,
            Knob("value_parts", (1, 2, 4, 8), "slices of the head dim, an accumulator each"),
            Knob("num_warps", (2, 4, 8), "warps per program"),
            Knob("num_stages", (1, 2, 3, 4), "software pipeline depth"),
            Knob(
                "order",
                ("heads", "blocks", "heads_reversed"),
                "what neighbouring programs differ in; reversed starts the longest first",
                ordered=False,
                host=True,
            ),
            *decode_knobs(problem),
        )
        constraints = (
            Constraint(
                "a program must hold one token of the whole group",
                ("block_m",),
                lambda rows: rows >= problem.group,
            ),
            *paging_constraints(problem.block_size),
            *decode_constraints(problem, arch),
            Constraint(
                "warps beyond one per 16 rows repeat rows, or have fewer than 8 keys each",
                ("block_m", "tile", "num_warps"),
                layout.warps_fit,
            ),
            Constraint(
                "slices of the head dim must be what spreads these warps over rows",
                ("block_m", "num_warps", "value_parts"),
                lambda rows, warps, parts: parts in layout.value_parts(rows, warps),
            ),
            Constraint(
                "without prefetch stages come in pairs: one of each pair is enough",
                ("prefetch", "num_stages"),
                lambda prefetch, stages: prefetch or stages != (3 if arch.vendor == "amd" else 4),
            ),
            Constraint(
                "queries and pipelined tiles exceed shared memory",
                ("block_m", "tile", "prefetch", "num_warps", "num_stages"),
                lambda *knobs: layout.shared_bytes(*knobs) <= arch.shared_bytes_per_block,
            ),
            Constraint(
                "accumulator, scores and queries leave too few registers",
                ("block_m", "tile", "num_warps"),
                layout.registers_fit,
            ),
        )
        return SearchSpace(knobs, constraints, amd_knobs(arch, without=("matrix_instr_nonkdim",)))

    def default_config(self, problem: PrefillProblem, arch: GpuArch) -> Config:
        """What hand-written serving kernels use: 64 rows, 32 keys, 4 warps, one masked loop.

        Keys, loop and grid as in vLLM's unified attention, rows as in its older prefix kernel and
        in SGLang's extend kernel; fewer where a sequence has fewer, half for heads above 128.
        """
        wanted = next_power_of_2(problem.query_len * problem.group)
        most_rows = 64 if problem.head_dim <= 128 else 32
        rows = max(16, min(most_rows, wanted), next_power_of_2(problem.group))
        layout = AttentionLayout(arch, problem.dtype, problem.head_dim, problem.kv_number_bytes)
        return self.space(problem, arch).closest(
            {
                "block_m": rows,
                "tile": 32,
                "lookup": "scalar" if problem.block_size >= 32 else "gather",
                "prefetch": False,
                "tail": "masked",
                "value_parts": layout.value_parts(rows, 4)[0],
                "num_warps": 4,
                "num_stages": 2,
                "order": "blocks",
                **default_decode(problem, arch),
            }
        )

    def template_values(self, problem: PrefillProblem, config: Config) -> Mapping[str, Any]:
        """Padded sizes, query tokens per program and dot precision."""
        return {
            "options": compile_options(config),
            "head_dim_padded": next_power_of_2(problem.head_dim),
            "block_q": config.number("block_m") // problem.group,
            "dot_precision": dot_precision(problem.dtype),
            **variant_values(problem, config),
        }

    def work(self, problem: PrefillProblem, config: Config, arch: GpuArch) -> tuple[Work, ...]:
        """One program per block of queries and KV head; later blocks see more keys."""
        size = DTYPE_BYTES[problem.dtype]
        rows, tile = config.number("block_m"), config.number("tile")
        block_q = rows // problem.group
        walk = CausalWalk.of(problem.query_len, problem.context_len, problem.window, block_q, tile)
        pairs = problem.num_seqs * problem.num_kv_heads
        blocks = problem.num_seqs * problem.query_len // block_q + problem.num_seqs
        grid = blocks * problem.num_kv_heads
        steps = pairs * walk.steps
        token_bytes = problem.token_bytes
        q_and_out = 2.0 * pairs * problem.query_len * problem.group * problem.head_dim * size
        work = Work(
            entry="paged_attention_prefill",
            grid=grid,
            loop_steps=steps / max(1, grid),
            longest_steps=walk.longest,
            flops=4.0 * rows * next_power_of_2(problem.head_dim) * tile * steps,
            matrix_dtype=None if problem.dtype == "fp32" else problem.dtype,
            dram_bytes=self.min_bytes(problem),
            l2_bytes=pairs * walk.tokens * token_bytes + q_and_out,
            step_bytes=tile * token_bytes,
            tile=(rows, tile, 64),
            stored_bytes=problem.kv_number_bytes if problem.quantised else None,
        )
        return (work,)

    def flops(self, problem: PrefillProblem) -> float:
        """4 · heads · head_dim per pair of a query and a token it sees."""
        heads = problem.num_kv_heads * problem.group
        pairs = pairs_seen(problem.query_len, problem.context_len, problem.window)
        return 4.0 * problem.num_seqs * heads * problem.head_dim * pairs

    def min_bytes(self, problem: PrefillProblem) -> float:
        """Keys and values that any query sees once; queries in, outputs out."""
        n, context = problem.query_len, problem.context_len
        seen = min(context, n - 1 + problem.window) if problem.window and n else context
        kv = problem.num_kv_heads * (seen if n else 0) * problem.token_bytes
        q_and_out = 2.0 * problem.num_kv_heads * problem.group * n * problem.head_dim
        q_and_out *= DTYPE_BYTES[problem.dtype]
        return problem.num_seqs * (kv + q_and_out) + problem.head_scales_bytes

    def expected_mma(self, problem: PrefillProblem, config: Config, arch: GpuArch) -> str | None:
        """64 rows and 4 warps reach the warp group's instructions; fewer do not."""
        if problem.dtype == "fp32":
            return None
        if arch.vendor == "amd":
            return "mfma"
        layout = AttentionLayout(arch, problem.dtype, problem.head_dim, problem.kv_number_bytes)
        if not layout.warp_group(config.number("block_m"), config.number("num_warps")):
            return "mma"
        return "wgmma" if arch.capability == 90 else "tcgen05"

    def reduction_order(self, problem: PrefillProblem, config: Config, arch: GpuArch) -> Config:
        """Tiles of keys, which start at multiples of their size, and the spread of rows over warps.

        A row takes no notice of tiles that it does not see, so that chunks of a prompt do not
        matter; with two loops they do, see `_PAGING_KNOBS`.
        """
        return order_by(config, "block_m", "tile", "value_parts", "num_warps", "fp8_decode")

    def problems(
        self, shape: ModelShape, dtype: str, block_sizes: tuple[int, ...]
    ) -> list[PrefillProblem]:
        """One cell per KV block size."""
        return cells(PrefillProblem, shape, dtype, block_sizes)

    def points(self, cell: PrefillProblem) -> list[PrefillProblem]:
        """Whole prompts, a chunk on a long context, and many short pieces as in a mixed batch."""
        sizes = (
            (1, 512, 512),
            (1, 2048, 2048),
            (1, 8192, 8192),
            (4, 512, 512),
            (4, 2048, 2048),
            (1, 512, 32768 + 512),
            (32, 16, 2048),
        )
        return [
            cell.at(num_seqs=num_seqs, query_len=query_len, context_len=context_len)
            for num_seqs, query_len, context_len in sizes
        ]

    def hard_problems(self) -> list[PrefillProblem]:
        """See `paged_attention_prefill_problem`."""
        return paged_attention_prefill_problem.hard_problems()

    def make_inputs(self, problem: PrefillProblem, seed: int, device: str) -> Inputs:
        """Ragged and poisoned, see `paged_attention_prefill_problem`."""
        return paged_attention_prefill_problem.make_inputs(problem, seed, device)

    def bench_inputs(self, problem: PrefillProblem, seed: int, device: str) -> Inputs:
        """All sequences at full lengths."""
        return paged_attention_prefill_problem.bench_inputs(problem, seed, device)

    def reference(self, problem: PrefillProblem, inputs: Inputs) -> torch.Tensor:
        """Sequence by sequence, in fp64: shaped as `out`."""
        return paged_attention_prefill_problem.reference(problem, inputs)

    def run(self, module: ModuleType, problem: PrefillProblem, inputs: Inputs) -> torch.Tensor:
        """Launch and return `out`."""
        module.launch(**inputs)
        out: torch.Tensor = inputs["out"]
        return out

    def values(self, problem: PrefillProblem, inputs: Inputs, out: torch.Tensor) -> torch.Tensor:
        """The output as it is."""
        return out

    def tolerance(self, problem: PrefillProblem) -> Tolerance:
        """See `paged_attention.tolerance`."""
        return tolerance(problem)
