"""Decode attention: one query token per sequence over a paged KV cache, unsplit or split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from autotune.arch import GpuArch
from autotune.kernels.dtypes import (
    ACCUMULATION_ERROR,
    DTYPE_BYTES,
    FLOAT_DTYPES,
    MACHINE_EPSILON,
    dot_precision,
    next_power_of_2,
    torch_dtype,
)
from autotune.kernels.paged_cache import (
    attend,
    gather_context,
    make_paged_cache,
    random_paged_cache,
)
from autotune.kernels.spec import Inputs, Tolerance, Work
from autotune.model_shape import ModelShape
from autotune.problem import AxisValue, Problem, exact, nearest
from autotune.space import Config, Constraint, Knob, SearchSpace

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DecodeProblem(Problem):
    """One decode step of `num_seqs` sequences, each over `context_len` cached tokens."""

    kernel: ClassVar[str] = "paged_attention_decode"

    dtype: str = exact("bf16", "dtype of queries, cache and output", FLOAT_DTYPES)
    head_dim: int = exact(128, "elements per head")
    group: int = exact(4, "query heads per KV head")
    block_size: int = exact(16, "tokens per KV page")
    window: int = exact(0, "sliding window in tokens, 0 for none")
    softcap: float = exact(0.0, "cap on the logits, 0 for none")
    num_kv_heads: int = nearest(8, "KV heads on this device")
    num_seqs: int = nearest(32, "sequences in the batch")
    context_len: int = nearest(2048, "tokens per sequence")


class PagedAttentionDecode:
    """Template `paged_attention_decode.py.jinja`."""

    name: ClassVar[str] = "paged_attention_decode"
    template: ClassVar[str] = "paged_attention_decode.py.jinja"
    problem_type = DecodeProblem

    def space(self, problem: DecodeProblem, arch: GpuArch) -> SearchSpace:
        """Tile, page lookup, prefetch, loop form, split, warps and pipeline stages."""
        block, padded = problem.block_size, next_power_of_2(problem.head_dim)
        kv_bytes = 2 * padded * DTYPE_BYTES[problem.dtype]
        rows = max(16, next_power_of_2(problem.group))
        knobs = (
            Knob("variant", ("unsplit", "split"), "one pass, or ranges merged by a second kernel"),
            Knob("tile", (16, 32, 64, 128), "tokens per iteration"),
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
                "one masked loop, or an unmasked loop and a masked last tile",
                ordered=False,
            ),
            Knob("num_warps", (1, 2, 4, 8), "warps per program"),
            Knob("num_stages", (1, 2, 3, 4, 5), "software pipeline depth"),
            Knob("num_splits", (1, 2, 4, 8, 16, 32, 64), "ranges of the context", host=True),
        )
        constraints = (
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
            Constraint(
                "one range is the unsplit variant",
                ("variant", "num_splits"),
                lambda variant, splits: (variant == "unsplit") == (splits == 1),
            ),
        )
        return SearchSpace(knobs, constraints)

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
            }
        )

    def template_values(self, problem: DecodeProblem, config: Config) -> Mapping[str, Any]:
        """Padded sizes, dot precision and the main entry point's name."""
        return {
            "head_dim_padded": next_power_of_2(problem.head_dim),
            "group_padded": max(16, next_power_of_2(problem.group)),
            "dot_precision": dot_precision(problem.dtype),
            "entry": f"paged_attention_decode_{config['variant']}",
        }

    def work(self, problem: DecodeProblem, config: Config, arch: GpuArch) -> tuple[Work, ...]:
        """One program per sequence, KV head and range; then one merge program per head."""
        size = DTYPE_BYTES[problem.dtype]
        tile, splits = config.number("tile"), config.number("num_splits")
        seen = self._tokens_seen(problem)
        tiles = math.ceil(seen / tile)
        steps = math.ceil(tiles / splits)
        pairs = problem.num_seqs * problem.num_kv_heads
        padded = next_power_of_2(problem.head_dim)
        rows = max(16, next_power_of_2(problem.group))
        kv_bytes = 2.0 * pairs * seen * problem.head_dim * size
        q_bytes = 1.0 * pairs * problem.group * problem.head_dim * size
        partial_bytes = 4.0 * pairs * problem.group * splits * (padded + 2) if splits > 1 else 0.0
        main = Work(
            entry=f"paged_attention_decode_{config['variant']}",
            grid=pairs * splits,
            loop_steps=tiles / splits,
            longest_steps=steps,
            flops=4.0 * pairs * rows * padded * tiles * tile,
            matrix_dtype=problem.dtype,
            dram_bytes=kv_bytes + q_bytes + (0.0 if splits > 1 else q_bytes),
            l2_bytes=kv_bytes + q_bytes * (splits + 1) + partial_bytes,
            step_bytes=2.0 * tile * problem.head_dim * size,
        )
        if splits == 1:
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
        return 4.0 * problem.num_seqs * heads * problem.head_dim * self._tokens_seen(problem)

    def min_bytes(self, problem: DecodeProblem) -> float:
        """Keys and values once; queries in, outputs out."""
        size = DTYPE_BYTES[problem.dtype]
        kv = 2.0 * problem.num_kv_heads * self._tokens_seen(problem)
        q_and_out = 2.0 * problem.num_kv_heads * problem.group
        return problem.num_seqs * problem.head_dim * size * (kv + q_and_out)

    def expected_mma(self, problem: DecodeProblem, config: Config, arch: GpuArch) -> str | None:
        """Sixteen rows are warp-level matrix instructions everywhere."""
        if problem.dtype == "fp32":
            return None
        return "mfma" if arch.vendor == "amd" else "mma"

    def problems(
        self, shape: ModelShape, dtype: str, block_sizes: tuple[int, ...]
    ) -> list[DecodeProblem]:
        """One cell per KV block size."""
        return [
            DecodeProblem(
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

    def points(self, cell: DecodeProblem) -> list[DecodeProblem]:
        """Batches of 1 to 128 over contexts of 512 to 32,768 tokens."""
        return [
            cell.at(num_seqs=num_seqs, context_len=context_len)
            for num_seqs in (1, 8, 32, 128)
            for context_len in (512, 2048, 8192, 32768)
        ]

    def hard_problems(self) -> list[DecodeProblem]:
        """Every block size, odd groups and head dims, windows, caps; lengths are made ragged."""
        fp16 = DecodeProblem(dtype="fp16", num_kv_heads=2, num_seqs=5, context_len=150)
        fp32 = fp16.at(context_len=83)
        shapes: list[dict[str, AxisValue]] = [
            {"group": 1, "head_dim": 64, "block_size": 16},
            {"group": 4, "head_dim": 80, "block_size": 32},
            {"group": 5, "head_dim": 96, "block_size": 16},
            {"group": 7, "head_dim": 128, "block_size": 64},
            {"group": 8, "head_dim": 128, "block_size": 128},
            {"group": 4, "head_dim": 256, "block_size": 256},
            {"group": 4, "head_dim": 64, "block_size": 48},
            {"group": 2, "head_dim": 64, "block_size": 16, "window": 33},
            {"group": 4, "head_dim": 128, "block_size": 32, "window": 64, "softcap": 50.0},
            {"group": 2, "head_dim": 128, "block_size": 16, "softcap": 1.5},
        ]
        return [
            type(base).from_axes(base.exact_axes() | base.nearest_axes() | shape | {"dtype": dtype})
            for dtype, base in (("fp16", fp16), ("fp32", fp32))
            for shape in shapes
        ]

    def make_inputs(self, problem: DecodeProblem, seed: int, device: str) -> Inputs:
        """Ragged contexts: empty, one token, exact pages, and up to `context_len`."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        longest = problem.context_len
        telling = [longest, 0, 1, problem.block_size, min(longest, 2 * problem.block_size + 1)]
        count = max(0, problem.num_seqs - len(telling))
        drawn = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
        context_lens = ([min(n, longest) for n in telling] + drawn)[: problem.num_seqs]
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
        q = torch.randn(problem.num_seqs, heads, problem.head_dim, generator=generator).to(kind)
        return {
            "out": torch.full_like(q, math.nan).to(device),
            "q": q.to(device),
            "k_cache": cache.k,
            "v_cache": cache.v,
            "block_tables": cache.block_tables,
            "context_lens": torch.tensor(context_lens, dtype=torch.int32, device=device),
            "scale": problem.head_dim**-0.5,
        }

    def bench_inputs(self, problem: DecodeProblem, seed: int, device: str) -> Inputs:
        """All sequences `context_len` long, pages of their own, shuffled."""
        import torch

        cache = random_paged_cache(
            problem.num_seqs,
            problem.context_len,
            problem.block_size,
            problem.num_kv_heads,
            problem.head_dim,
            problem.dtype,
            seed,
            device,
        )
        shape = (problem.num_seqs, problem.num_kv_heads * problem.group, problem.head_dim)
        q = torch.randn(shape, dtype=torch_dtype(problem.dtype), device=device)
        lens = torch.full((problem.num_seqs,), problem.context_len, dtype=torch.int32)
        return {
            "out": torch.empty_like(q),
            "q": q,
            "k_cache": cache.k,
            "v_cache": cache.v,
            "block_tables": cache.block_tables,
            "context_lens": lens.to(device),
            "scale": problem.head_dim**-0.5,
        }

    def reference(self, problem: DecodeProblem, inputs: Inputs) -> torch.Tensor:
        """Sequence by sequence, in fp64: [num_seqs, num_heads, head_dim]."""
        import torch

        rows = []
        for seq, length in enumerate(inputs["context_lens"].tolist()):
            table = inputs["block_tables"][seq]
            k = gather_context(inputs["k_cache"], table, length)
            v = gather_context(inputs["v_cache"], table, length)
            q = inputs["q"][seq : seq + 1]
            rows.append(attend(q, k, v, inputs["scale"], problem.window, problem.softcap))
        return torch.cat(rows)

    def run(self, module: ModuleType, problem: DecodeProblem, inputs: Inputs) -> torch.Tensor:
        """Launch and return `out`."""
        module.launch(**inputs)
        out: torch.Tensor = inputs["out"]
        return out

    def tolerance(self, problem: DecodeProblem) -> Tolerance:
        """P is rounded to the cache's dtype once, and the output once.

        A soft cap's tanh is right to 2^-24 of the cap, and that error lands on the logits.
        """
        epsilon = MACHINE_EPSILON[problem.dtype] + ACCUMULATION_ERROR + problem.softcap * 2.0**-24
        return Tolerance(relative=2 * epsilon, elementwise=4 * epsilon)

    @staticmethod
    def _tokens_seen(problem: DecodeProblem) -> int:
        if problem.window:
            return min(problem.window, problem.context_len)
        return problem.context_len
