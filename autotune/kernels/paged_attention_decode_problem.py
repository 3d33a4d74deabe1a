"""Decode attention's problems, and inputs and reference for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from autotune.kernels.dtypes import torch_dtype
from autotune.kernels.paged_attention import (
    PagedAttentionProblem,
    attend_in_cache,
    full_cache,
    loud,
    poisoned_cache,
)
from autotune.kernels.spec import Inputs
from autotune.problem import AxisValue, nearest

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DecodeProblem(PagedAttentionProblem):
    """One decode step of `num_seqs` sequences, each over `context_len` cached tokens."""

    kernel: ClassVar[str] = "paged_attention_decode"

    num_seqs: int = nearest(32, "sequences in the batch")
    context_len: int = nearest(2048, "tokens per sequence")

    @property
    def tokens_seen(self) -> int:
        """Tokens of a sequence that its query attends to."""
        return min(self.window, self.context_len) if self.window else self.context_len


def hard_problems() -> list[DecodeProblem]:
    """Every block size, odd groups and head dims, windows, caps; lengths are made ragged."""
    long = DecodeProblem(dtype="fp16", num_kv_heads=2, num_seqs=5, context_len=150)
    short = long.at(context_len=83)
    few: dict[str, AxisValue] = {"num_seqs": 4, "context_len": 75}
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
        {"group": 3, "head_dim": 192, "block_size": 32, **few},
    ]
    variants: list[dict[str, AxisValue]] = [
        {"group": 4, "head_dim": 128, "block_size": 16, "kv_dtype": "int8"},
        {"group": 5, "head_dim": 80, "block_size": 32, "kv_dtype": "int8", "kv_scale": "token"},
        {"group": 8, "head_dim": 64, "block_size": 64, "kv_dtype": "fp8", "sinks": True},
        {"group": 1, "head_dim": 256, "block_size": 16, "kv_dtype": "fp8", "kv_scale": "token"},
        {"group": 7, "head_dim": 96, "block_size": 16, "alibi": True},
        {"group": 4, "head_dim": 128, "block_size": 256, "sinks": True, "window": 40},
        {"group": 4, "head_dim": 64, "block_size": 128, "kv_dtype": "int8", "kv_scale": "token",
         "window": 33, "softcap": 2.0, "alibi": True, "sinks": True},
    ]  # fmt: skip
    return [
        type(base).from_axes(base.exact_axes() | base.nearest_axes() | shape | {"dtype": dtype})
        for dtype, base, chosen in (
            ("fp16", long, shapes + [few | variant for variant in variants]),
            ("bf16", short, shapes[1::2] + [few | variant for variant in variants[::2]]),
            ("fp32", short, shapes[::2] + [few | variant for variant in variants[1::2]]),
        )
        for shape in chosen
    ]


def make_inputs(problem: DecodeProblem, seed: int, device: str) -> Inputs:
    """Ragged contexts: empty, one token, exact pages, and up to `context_len`.

    The first sequence's queries are loud where there is a soft cap.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    longest = problem.context_len
    telling = [longest, 0, 1, problem.block_size, min(longest, 2 * problem.block_size + 1)]
    count = max(0, problem.num_seqs - len(telling))
    drawn = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    context_lens = ([min(n, longest) for n in telling] + drawn)[: problem.num_seqs]
    cache = poisoned_cache(problem, context_lens, seed, device)
    heads = problem.num_kv_heads * problem.group
    kind = torch_dtype(problem.dtype)
    q = torch.randn(problem.num_seqs, heads, problem.head_dim, generator=generator)
    q[:1] = loud(problem, q[:1])
    q = q.to(kind)
    return {
        "out": torch.full_like(q, math.nan).to(device),
        "q": q.to(device),
        **cache,
        "context_lens": torch.tensor(context_lens, dtype=torch.int32, device=device),
    }


def bench_inputs(problem: DecodeProblem, seed: int, device: str) -> Inputs:
    """All sequences `context_len` long, pages of their own, shuffled."""
    import torch

    cache = full_cache(problem, problem.num_seqs, problem.context_len, seed, device)
    shape = (problem.num_seqs, problem.num_kv_heads * problem.group, problem.head_dim)
    q = torch.randn(shape, dtype=torch_dtype(problem.dtype), device=device)
    lens = torch.full((problem.num_seqs,), problem.context_len, dtype=torch.int32)
    return {
        "out": torch.empty_like(q),
        "q": q,
        **cache,
        "context_lens": lens.to(device),
    }


def reference(problem: DecodeProblem, inputs: Inputs) -> torch.Tensor:
    """Sequence by sequence, in fp64: [num_seqs, num_heads, head_dim]."""
    import torch

    q = inputs["q"]
    return torch.cat(
        [
            attend_in_cache(problem, inputs, seq, q[seq : seq + 1], length)
            for seq, length in enumerate(inputs["context_lens"].tolist())
        ]
    )
