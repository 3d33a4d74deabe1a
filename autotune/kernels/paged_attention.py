"""What decode and prefill attention share: the paged cache's axes, knobs and rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from autotune.kernels.dtypes import ACCUMULATION_ERROR, FLOAT_DTYPES, MACHINE_EPSILON
from autotune.kernels.paged_cache import PagedCache, make_paged_cache, random_paged_cache
from autotune.kernels.spec import Inputs, Tolerance
from autotune.model_shape import ModelShape
from autotune.problem import Problem, exact, nearest
from autotune.space import Constraint, Knob

P = TypeVar("P", bound="PagedAttentionProblem")


@dataclass(frozen=True)
class PagedAttentionProblem(Problem):
    """Attention of grouped query heads over a cache of pages."""

    dtype: str = exact("bf16", "dtype of queries, cache and output", FLOAT_DTYPES)
    head_dim: int = exact(128, "elements per head")
    group: int = exact(4, "query heads per KV head")
    block_size: int = exact(16, "tokens per KV page")
    window: int = exact(0, "sliding window in tokens, 0 for none")
    softcap: float = exact(0.0, "cap on the logits, 0 for none")
    num_kv_heads: int = nearest(8, "KV heads on this device")


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
    return _cache_inputs(problem, cache)


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
    return _cache_inputs(problem, cache)


def _cache_inputs(problem: PagedAttentionProblem, cache: PagedCache) -> Inputs:
    return {
        "k_cache": cache.k,
        "v_cache": cache.v,
        "block_tables": cache.block_tables,
        "scale": problem.head_dim**-0.5,
    }
