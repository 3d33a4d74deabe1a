"""What decode and prefill attention share: the paged cache's axes, knobs and rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from autotune.errors import UsageError
from autotune.kernels.dtypes import ACCUMULATION_ERROR, DTYPE_BYTES, FLOAT_DTYPES, MACHINE_EPSILON
from autotune.kernels.paged_cache import (
    PagedCache,
    attend,
    gather_context,
    make_paged_cache,
    random_paged_cache,
)
from autotune.kernels.spec import Inputs, Tolerance
from autotune.knob import Constraint, Knob
from autotune.model_shape import ModelShape
from autotune.problem import Problem, exact, nearest

if TYPE_CHECKING:
    import torch

P = TypeVar("P", bound="PagedAttentionProblem")

KV_DTYPES = ("auto", "int8", "fp8")
KV_SCALES = ("head", "token")
TOKEN_SCALES_BYTES = 8
"""Of a token's two scales, of its key and of its value, per KV head, in fp32."""


@dataclass(frozen=True)
class PagedAttentionProblem(Problem):
    """Attention of grouped query heads over a cache of pages."""

    dtype: str = exact("bf16", "dtype of queries and output", FLOAT_DTYPES)
    head_dim: int = exact(128, "elements per head")
    group: int = exact(4, "query heads per KV head")
    block_size: int = exact(16, "tokens per KV page")
    window: int = exact(0, "sliding window in tokens, 0 for none")
    softcap: float = exact(0.0, "cap on the logits, 0 for none")
    kv_dtype: str = exact(
        "auto",
        "dtype of the cache: that of queries, int8, or fp8 (e4m3fn)",
        KV_DTYPES,
        optional=True,
    )
    kv_scale: str = exact(
        "head", "what has a scale in an int8 or fp8 cache", KV_SCALES, optional=True
    )
    alibi: bool = exact(False, "logits have slope * distance added", optional=True)
    sinks: bool = exact(False, "heads have a sink: a logit without a value", optional=True)
    num_kv_heads: int = nearest(8, "KV heads on this device")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kv_dtype == "auto" and self.kv_scale != "head":
            raise UsageError(f"kv_scale={self.kv_scale} needs kv_dtype=int8 or kv_dtype=fp8")

    @property
    def quantised(self) -> bool:
        """Whether the cache holds codes and scales."""
        return self.kv_dtype != "auto"

    @property
    def kv_number_bytes(self) -> int:
        """Bytes of one number of the cache."""
        return DTYPE_BYTES[self.kv_dtype if self.quantised else self.dtype]

    @property
    def token_bytes(self) -> float:
        """Bytes of a token's key and value in the cache, of one KV head, scales included."""
        scales = TOKEN_SCALES_BYTES if self.quantised and self.kv_scale == "token" else 0
        return 2.0 * self.head_dim * self.kv_number_bytes + scales

    @property
    def head_scales_bytes(self) -> float:
        """Bytes of scales that do not grow with the context."""
        per_head = self.quantised and self.kv_scale == "head"
        return 8.0 * self.num_kv_heads if per_head else 0.0


def cells(
    problem_type: type[P], shape: ModelShape, dtype: str, block_sizes: tuple[int, ...]
) -> list[P]:
    """One cell per KV block size of a model."""
    return [
        problem_type(
            dtype=dtype,
            head_dim=shape.head_dim,
            group=shape.group,
            block_size=block_size,
            window=shape.sliding_window or 0,
            softcap=shape.softcap or 0.0,
            kv_dtype=shape.kv_dtype,
            kv_scale=shape.kv_scale,
            alibi=shape.alibi,
            num_kv_heads=shape.num_kv_heads,
        )
        for block_size in block_sizes
    ]


PAGING_KNOBS = (
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
        "one masked loop, or an unmasked loop and a masked rest",
        ordered=False,
    ),
)


def paging_constraints(block_size: int) -> tuple[Constraint, ...]:
    """How tiles and pages must fit."""
    return (
        Constraint(
            "a tile must cover whole pages or lie inside one",
            ("tile",),
            lambda tile: block_size % tile == 0 or tile % block_size == 0,
        ),
        Constraint(
            "inside one page the lookup is a scalar; over several it cannot be",
            ("tile", "lookup"),
            lambda tile, lookup: (lookup == "scalar") == (block_size >= tile),
        ),
    )


def tolerance(problem: PagedAttentionProblem) -> Tolerance:
    """P is rounded to the cache's dtype once, and the output once.

    A soft cap's tanh is right to 2^-24 of the cap, and that error lands on the logits.
    """
    epsilon = MACHINE_EPSILON[problem.dtype] + ACCUMULATION_ERROR + problem.softcap * 2.0**-24
    return Tolerance(relative=2 * epsilon, elementwise=4 * epsilon)


def poisoned_cache(
    problem: PagedAttentionProblem, context_lens: list[int], seed: int, device: str
) -> Inputs:
    """The cache arguments of `launch` for a check; see `make_paged_cache`."""
    cache = make_paged_cache(
        context_lens,
        problem.block_size,
        problem.num_kv_heads,
        problem.head_dim,
        problem.dtype,
        seed,
        device,
    )
    return _cache_inputs(problem, cache, seed)


def full_cache(
    problem: PagedAttentionProblem, num_seqs: int, context_len: int, seed: int, device: str
) -> Inputs:
    """The cache arguments of `launch` for timing; see `random_paged_cache`."""
    cache = random_paged_cache(
        num_seqs,
        context_len,
        problem.block_size,
        problem.num_kv_heads,
        problem.head_dim,
        problem.dtype,
        seed,
        device,
    )
    return _cache_inputs(problem, cache, seed)


def _cache_inputs(problem: PagedAttentionProblem, cache: PagedCache, seed: int) -> Inputs:
    import torch

    cache = cache.quantised(problem.kv_dtype, problem.kv_scale, is_odd=seed % 2 == 1)
    inputs: Inputs = {
        "k_cache": cache.k,
        "v_cache": cache.v,
        "block_tables": cache.block_tables,
        "scale": problem.head_dim**-0.5,
    }
    if problem.quantised:
        inputs |= {"k_scale": cache.k_scale, "v_scale": cache.v_scale}
    heads = problem.num_kv_heads * problem.group
    if problem.alibi:  # the paper's slopes, for a number of heads that is a power of two
        slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1, dtype=torch.float32) / heads)
        inputs["alibi_slopes"] = slopes.to(cache.k.device)
    if problem.sinks:  # one that takes most of the weight, and some that take little
        drawn = torch.randn(heads, generator=torch.Generator().manual_seed(seed + 1))
        drawn[0] = 6.0
        inputs["sinks"] = drawn.to(cache.k.device)
    return inputs


def loud(problem: PagedAttentionProblem, queries: torch.Tensor) -> torch.Tensor:
    """Queries [..., head_dim] whose logits pass a soft cap many times; without one, these.

    Quotients of exponentials overflow from 88 times on; fp16 ends at 65,504. Each has one number
    that is not zero: of large products that cancel, what is left has an error that no cap hides.
    """
    if not problem.softcap:
        return queries
    number = min(100.0 * problem.softcap * problem.head_dim**0.5, 6e4)
    where = queries.abs().argmax(-1, keepdim=True)
    return queries.new_zeros(queries.shape).scatter(-1, where, number)


def attend_in_cache(
    problem: PagedAttentionProblem, inputs: Inputs, seq: int, q: torch.Tensor, seen: int
) -> torch.Tensor:
    """Answer in fp64 of queries q [query_len, num_heads, head_dim], the newest of `seen` tokens."""
    k, v = (
        gather_context(
            inputs[f"{name}_cache"],
            inputs["block_tables"][seq],
            seen,
            inputs.get(f"{name}_scale"),
        )
        for name in ("k", "v")
    )
    return attend(
        q,
        k,
        v,
        inputs["scale"],
        problem.window,
        problem.softcap,
        inputs.get("alibi_slopes"),
        inputs.get("sinks"),
    )
