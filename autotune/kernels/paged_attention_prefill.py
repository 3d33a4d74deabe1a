"""Prefill attention: any number of query tokens per sequence over a paged KV cache, causal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from autotune.arch import GpuArch
from autotune.errors import UsageError
from autotune.kernels.attention_layout import AttentionLayout
from autotune.kernels.causal_walk import CausalWalk, pairs_seen
from autotune.kernels.dtypes import (
    ACCUMULATION_ERROR,
    DTYPE_BYTES,
    FLOAT_DTYPES,
    MACHINE_EPSILON,
    dot_precision,
    next_power_of_2,
    torch_dtype,
)
from autotune.kernels.paged_cache import attend, gather_context, make_paged_cache
from autotune.kernels.spec import Inputs, Tolerance, Work
from autotune.model_shape import ModelShape
from autotune.problem import AxisValue, Problem, exact, nearest
from autotune.space import Config, Constraint, Knob, SearchSpace

if TYPE_CHECKING:
    import torch

_PADDING_TOKENS = 3
_REFERENCE_QUERIES = 128


@dataclass(frozen=True)
class PrefillProblem(Problem):
    """`num_seqs` sequences of `query_len` new tokens each, the last of `context_len` in the cache.

    A whole prompt has query_len = context_len; a chunk, or a speculative step, has less.
    """

    kernel: ClassVar[str] = "paged_attention_prefill"

    dtype: str = exact("bf16", "dtype of queries, cache and output", FLOAT_DTYPES)
    head_dim: int = exact(128, "elements per head")
    group: int = exact(4, "query heads per KV head")
    block_size: int = exact(16, "tokens per KV page")
    window: int = exact(0, "sliding window in tokens, 0 for none")
    softcap: float = exact(0.0, "cap on the logits, 0 for none")
    num_kv_heads: int = nearest(8, "KV heads on this device")
    num_seqs: int = nearest(1, "sequences in the batch")
    query_len: int = nearest(2048, "new tokens per sequence")
    context_len: int = nearest(2048, "tokens per sequence in the cache, the new ones included")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.query_len > self.context_len:
            raise UsageError(
                f"query_len={self.query_len} exceeds context_len={self.context_len}, which counts"
                " the new tokens too; raise context_len"
            )


class PagedAttentionPrefill:
    """Template `paged_attention_prefill.py.jinja`."""

    name: ClassVar[str] = "paged_attention_prefill"
    template: ClassVar[str] = "paged_attention_prefill.py.jinja"
    problem_type = PrefillProblem

    def space(self, problem: PrefillProblem, arch: GpuArch) -> SearchSpace:
        """Rows, tile, page lookup, prefetch, loop form, warps, pipeline stages and grid order."""
        block = problem.block_size
        layout = AttentionLayout(arch, problem.dtype, problem.head_dim)
        knobs = (
            Knob("block_m", (16, 32, 64, 128), "rows per program: query tokens times group"),
            Knob("tile", (16, 32, 64, 128), "keys per iteration"),
            Knob(
                "lookup",
                ("scalar", "pages", "gather"),
                "page ids per tile: one, one per page, one per token",
                ordered=False,
            ),
            Knob("prefetch", (False, True), "load the next tile's page ids one iteration early"),
            Knob(
                "tail",
                ("masked", "split_loop"),
                "one masked loop, or an unmasked loop and a masked one at the diagonal",
                ordered=False,
            ),
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
        )
        constraints = (
            Constraint(
                "a program must hold one token of the whole group",
                ("block_m",),
                lambda rows: rows >= problem.group,
            ),
            Constraint(
                "a tile must cover whole pages or lie inside one",
                ("tile",),
                lambda tile: block % tile == 0 or tile % block == 0,
            ),
            Constraint(
                "inside one page the lookup is a scalar; over several it cannot be",
                ("tile", "lookup"),
                lambda tile, lookup: (lookup == "scalar") == (block >= tile),
            ),
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
        return SearchSpace(knobs, constraints)

    def default_config(self, problem: PrefillProblem, arch: GpuArch) -> Config:
        """What hand-written serving kernels use: 64 rows, 32 keys, 4 warps, one masked loop.

        Keys, loop and grid as in vLLM's unified attention, rows as in its older prefix kernel and
        in SGLang's extend kernel; fewer where a sequence has fewer, half for heads above 128.
        """
        rows = next_power_of_2(problem.query_len * problem.group)
        most_rows = 64 if problem.head_dim <= 128 else 32
        return self.space(problem, arch).closest(
            {
                "block_m": max(16, min(most_rows, rows), next_power_of_2(problem.group)),
                "tile": 32,
                "lookup": "scalar" if problem.block_size >= 32 else "gather",
                "prefetch": False,
                "tail": "masked",
                "num_warps": 4,
                "num_stages": 2,
                "order": "blocks",
            }
        )

    def template_values(self, problem: PrefillProblem, config: Config) -> Mapping[str, Any]:
        """Padded sizes, query tokens per program and dot precision."""
        return {
            "head_dim_padded": next_power_of_2(problem.head_dim),
            "block_q": config.number("block_m") // problem.group,
            "dot_precision": dot_precision(problem.dtype),
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
        token_bytes = 2.0 * problem.head_dim * size
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
        kv = 2.0 * problem.num_kv_heads * (seen if n else 0)
        q_and_out = 2.0 * problem.num_kv_heads * problem.group * n
        return problem.num_seqs * problem.head_dim * DTYPE_BYTES[problem.dtype] * (kv + q_and_out)

    def expected_mma(self, problem: PrefillProblem, config: Config, arch: GpuArch) -> str | None:
        """64 rows and 4 warps reach the warp group's instructions; fewer do not."""
        if problem.dtype == "fp32":
            return None
        if arch.vendor == "amd":
            return "mfma"
        layout = AttentionLayout(arch, problem.dtype, problem.head_dim)
        if not layout.warp_group(config.number("block_m"), config.number("num_warps")):
            return "mma"
        return "wgmma" if arch.capability == 90 else "tcgen05"

    def problems(
        self, shape: ModelShape, dtype: str, block_sizes: tuple[int, ...]
    ) -> list[PrefillProblem]:
        """One cell per KV block size."""
        return [
            PrefillProblem(
                dtype=dtype,
                head_dim=shape.head_dim,
                group=shape.group,
                block_size=block_size,
                window=shape.sliding_window or 0,
                softcap=shape.softcap or 0.0,
                num_kv_heads=shape.num_kv_heads,
            )
            for block_size in block_sizes
        ]

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
        """Every block size, odd groups and head dims, windows, caps; lengths are made ragged."""
        sizes: dict[str, AxisValue] = {
            "num_kv_heads": 2,
            "num_seqs": 6,
            "query_len": 11,
            "context_len": 75,
        }
        shapes: list[dict[str, AxisValue]] = [
            {"group": 1, "head_dim": 64, "block_size": 16},
            {"group": 4, "head_dim": 80, "block_size": 32},
            {"group": 5, "head_dim": 96, "block_size": 16},
            {"group": 7, "head_dim": 128, "block_size": 64},
            {"group": 8, "head_dim": 128, "block_size": 128},
            {"group": 4, "head_dim": 256, "block_size": 16, "query_len": 7},
            {"group": 4, "head_dim": 64, "block_size": 48},
            {"group": 4, "head_dim": 128, "block_size": 16, "query_len": 40, "context_len": 41},
            {"group": 2, "head_dim": 64, "block_size": 16, "window": 33},
            {"group": 4, "head_dim": 128, "block_size": 32, "window": 16, "softcap": 50.0},
            {"group": 2, "head_dim": 128, "block_size": 16, "softcap": 1.5, "window": 1},
        ]
        return [
            PrefillProblem.from_axes(sizes | shape | {"dtype": dtype})
            for dtype, chosen in (("fp16", shapes), ("fp32", shapes[1::2]))
            for shape in chosen
        ]

    def make_inputs(self, problem: PrefillProblem, seed: int, device: str) -> Inputs:
        """Ragged queries and contexts: none, one, whole prompts, chunks; and padding at the end.

        Queries are a slice of a packed qkv tensor, as in an engine; the rest of it, and the rows
        past the last sequence, are NaN. Output rows past the last sequence are one, to stay so.
        """
        import torch

        generator = torch.Generator().manual_seed(seed)
        query_lens, context_lens = _ragged_lens(problem, generator)
        cache = make_paged_cache(
            context_lens,
            problem.block_size,
            problem.num_kv_heads,
            problem.head_dim,
            problem.dtype,
            seed,
            device,
        )
        heads = problem.num_kv_heads * problem.group
        kind = torch_dtype(problem.dtype)
        live = sum(query_lens)
        shape = (live + _PADDING_TOKENS, heads + 2 * problem.num_kv_heads, problem.head_dim)
        qkv = torch.full(shape, math.nan)
        qkv[:live, :heads] = torch.randn(live, heads, problem.head_dim, generator=generator)
        out = torch.full((shape[0], heads, problem.head_dim), math.nan, dtype=kind)
        out[live:] = 1.0
        starts = torch.tensor([0, *query_lens]).cumsum(0)
        return {
            "out": out.to(device),
            "q": qkv.to(kind).to(device)[:, :heads],
            "k_cache": cache.k,
            "v_cache": cache.v,
            "block_tables": cache.block_tables,
            "cu_query_lens": starts.to(torch.int32).to(device),
            "context_lens": torch.tensor(context_lens, dtype=torch.int32, device=device),
            "scale": problem.head_dim**-0.5,
        }

    def reference(self, problem: PrefillProblem, inputs: Inputs) -> torch.Tensor:
        """Sequence by sequence and a few queries at a time, in fp64: shaped as `out`."""
        import torch

        q = inputs["q"]
        answer = torch.ones(q.shape, dtype=torch.float64, device=q.device)
        starts = inputs["cu_query_lens"].tolist()
        for seq, length in enumerate(inputs["context_lens"].tolist()):
            table = inputs["block_tables"][seq]
            k = gather_context(inputs["k_cache"], table, length)
            v = gather_context(inputs["v_cache"], table, length)
            for start in range(starts[seq], starts[seq + 1], _REFERENCE_QUERIES):
                stop = min(start + _REFERENCE_QUERIES, starts[seq + 1])
                seen = max(0, length - (starts[seq + 1] - stop))
                answer[start:stop] = attend(
                    q[start:stop],
                    k[:seen],
                    v[:seen],
                    inputs["scale"],
                    problem.window,
                    problem.softcap,
                )
        return answer

    def run(self, module: ModuleType, problem: PrefillProblem, inputs: Inputs) -> torch.Tensor:
        """Launch and return `out`."""
        module.launch(**inputs)
        out: torch.Tensor = inputs["out"]
        return out

    def tolerance(self, problem: PrefillProblem) -> Tolerance:
        """P is rounded to the cache's dtype once, and the output once.

        A soft cap's tanh is right to 2^-24 of the cap, and that error lands on the logits.
        """
        epsilon = MACHINE_EPSILON[problem.dtype] + ACCUMULATION_ERROR + problem.softcap * 2.0**-24
        return Tolerance(relative=2 * epsilon, elementwise=4 * epsilon)


def _ragged_lens(
    problem: PrefillProblem, generator: torch.Generator
) -> tuple[list[int], list[int]]:
    """Query and context lengths of each sequence; the first is the full size."""
    import torch

    n, longest = problem.query_len, problem.context_len
    telling = [
        (n, longest),
        (0, longest),
        (1, 0),  # padding of a captured batch: a query without a context
        (n, n),
        (1, longest - longest // 3),
        (min(n, problem.block_size), min(longest, 2 * problem.block_size)),
    ]
    drawn = torch.randint(0, n + 1, (problem.num_seqs,), generator=generator).tolist()
    pairs = telling + [
        (length, int(torch.randint(length, longest + 1, (), generator=generator)))
        for length in drawn[len(telling) :]
    ]
    query_lens, context_lens = zip(*pairs[: problem.num_seqs], strict=True)
    return list(query_lens), list(context_lens)
