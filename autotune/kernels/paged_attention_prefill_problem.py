"""Prefill attention's problems, and inputs and reference for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from autotune.errors import UsageError
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

_PADDING_TOKENS = 3
_REFERENCE_QUERIES = 128


@dataclass(frozen=True)
class PrefillProblem(PagedAttentionProblem):
    """`num_seqs` sequences of `query_len` new tokens each, the last of `context_len` in the cache.

    A whole prompt has query_len = context_len; a chunk, or a speculative step, has less.
    """

    kernel: ClassVar[str] = "paged_attention_prefill"

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


def hard_problems() -> list[PrefillProblem]:
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
        {"group": 4, "head_dim": 128, "block_size": 16, "kv_dtype": "int8"},
        {"group": 5, "head_dim": 80, "block_size": 32, "kv_dtype": "int8", "kv_scale": "token"},
        {"group": 8, "head_dim": 64, "block_size": 64, "kv_dtype": "fp8", "sinks": True},
        {"group": 1, "head_dim": 256, "block_size": 16, "kv_dtype": "fp8", "kv_scale": "token",
         "query_len": 7},
        {"group": 7, "head_dim": 96, "block_size": 16, "alibi": True},
        {"group": 4, "head_dim": 128, "block_size": 256, "sinks": True, "window": 40},
        {"group": 4, "head_dim": 64, "block_size": 128, "kv_dtype": "int8", "kv_scale": "token",
         "window": 33, "softcap": 2.0, "alibi": True, "sinks": True},
        {"group": 3, "head_dim": 192, "block_size": 32, "query_len": 7},
    ]  # fmt: skip
    return [
        PrefillProblem.from_axes(sizes | shape | {"dtype": dtype})
        for dtype, chosen in (("fp16", shapes), ("bf16", shapes[::2]), ("fp32", shapes[1::2]))
        for shape in chosen
    ]


def make_inputs(problem: PrefillProblem, seed: int, device: str) -> Inputs:
    """Ragged queries and contexts: none, one, whole prompts, chunks; and padding at the end.

    Queries are a slice of a packed qkv tensor, as in an engine; the rest of it, and the rows
    past the last sequence, are NaN. Output rows past the last sequence are one, to stay so. The
    first token's queries are loud where there is a soft cap.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    query_lens, context_lens = _ragged_lens(problem, generator)
    cache = poisoned_cache(problem, context_lens, seed, device)
    heads = problem.num_kv_heads * problem.group
    kind = torch_dtype(problem.dtype)
    live = sum(query_lens)
    shape = (live + _PADDING_TOKENS, heads + 2 * problem.num_kv_heads, problem.head_dim)
    qkv = torch.full(shape, math.nan)
    qkv[:live, :heads] = torch.randn(live, heads, problem.head_dim, generator=generator)
    qkv[:1, :heads] = loud(problem, qkv[:1, :heads])
    out = torch.full((shape[0], heads, problem.head_dim), math.nan, dtype=kind)
    out[live:] = 1.0
    starts = torch.tensor([0, *query_lens]).cumsum(0)
    return {
        "out": out.to(device),
        "q": qkv.to(kind).to(device)[:, :heads],
        **cache,
        "cu_query_lens": starts.to(torch.int32).to(device),
        "context_lens": torch.tensor(context_lens, dtype=torch.int32, device=device),
    }


def bench_inputs(problem: PrefillProblem, seed: int, device: str) -> Inputs:
    """All sequences at full lengths, pages of their own, nothing poisoned."""
    import torch

    cache = full_cache(problem, problem.num_seqs, problem.context_len, seed, device)
    tokens = problem.num_seqs * problem.query_len
    shape = (tokens, problem.num_kv_heads * problem.group, problem.head_dim)
    q = torch.randn(shape, dtype=torch_dtype(problem.dtype), device=device)
    starts = torch.arange(0, tokens + 1, problem.query_len, dtype=torch.int32)
    lens = torch.full((problem.num_seqs,), problem.context_len, dtype=torch.int32)
    return {
        "out": torch.empty_like(q),
        "q": q,
        **cache,
        "cu_query_lens": starts.to(device),
        "context_lens": lens.to(device),
    }


def reference(problem: PrefillProblem, inputs: Inputs) -> torch.Tensor:
    """Sequence by sequence and a few queries at a time, in fp64: shaped as `out`."""
    import torch

    q = inputs["q"]
    answer = torch.ones(q.shape, dtype=torch.float64, device=q.device)
    starts = inputs["cu_query_lens"].tolist()
    for seq, length in enumerate(inputs["context_lens"].tolist()):
        for start in range(starts[seq], starts[seq + 1], _REFERENCE_QUERIES):
            stop = min(start + _REFERENCE_QUERIES, starts[seq + 1])
            seen = max(0, length - (starts[seq + 1] - stop))
            answer[start:stop] = attend_in_cache(problem, inputs, seq, q[start:stop], seen)
    return answer


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
