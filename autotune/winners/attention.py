"""IBM's winners of vLLM's unified paged attention, with times.

Mapping (after github.com/foundation-model-stack/vllm-triton-backend, Apache-2.0): our prefill
kernel with block_m = BLOCK_M, tile = BLOCK_N, page ids gathered for each key, one masked loop and
no prefetch; warps and stages as they are. The times say that the version which was measured walked
all keys of a sequence, whatever causality left: the last 2048 of 4096 queries take 0.53 of the time
of all, where skipping would make it 0.74, and a tile takes the same 4.9 µs at every length.

The records name powers of two of the longest and mean lengths, not the batch. Their benchmark goes
through batch sizes in rising order, and a problem is tuned when its key first comes up; so the
batch is the first of that benchmark's with the same key (`benchmark_batches`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import cycle, islice, product
from typing import Any

import numpy as np

from autotune.arch import GpuArch
from autotune.kernels.dtypes import next_power_of_2
from autotune.launch import Launch
from autotune.tiles import Array, Tiles, estimate_attention
from autotune.winners.case import Candidates, Case, fitting, grid, make_case, powers

Batch = tuple[tuple[int, int], ...]
"""Query length and context length of each sequence."""
Key = tuple[int, int, int, int]

_SPACE = {
    "block_m": powers(16, 512),
    "tile": powers(16, 512),
    "num_warps": (2, 4, 8),
    "num_stages": (1, 2, 4, 6, 8),
}
_BATCH_SIZES = powers(1, 128)
_LENGTHS = (16, 32, 64, 128, 512, 1024, 2048, 4096)
_DECODE_SHARES = (0.0, 0.5, 1.0)
_PARTIAL_SHARES = (0.0, 0.5)
_PATTERNS = ((1.0,), (0.1, 0.4, 0.5, 1.0, 0.2))
_LOAD_INSTRUCTIONS = 8.0
"""Of one lane per 16 bytes: the page's address, the mask, the copy."""


def cases(gpu: GpuArch, rows: Sequence[tuple[Any, Any, Any]]) -> Iterator[Case | None]:
    """One case per record; None where its configuration is illegal."""
    for problem, config, time_us in rows:
        key = (
            problem["max_seq_q"], problem["max_seq_k"],
            problem["avg_seq_q"], problem["avg_seq_k"],
        )  # fmt: skip
        batch = benchmark_batches(problem["block_size"]).get(key, ((key[0], key[1]),))
        record = {
            "block_m": config["BLOCK_M"],
            "tile": config["BLOCK_N"],
            "num_warps": config["num_warps"],
            "num_stages": config["num_stages"],
        }
        candidates = _candidates(gpu, batch, problem)
        yield make_case(
            "ibm unified_attention", gpu, "attention", problem, candidates, [record], [time_us]
        )


@cache
def benchmark_batches(block_size: int) -> Mapping[Key, Batch]:
    """First batch of the benchmark for every key of longest and mean query and context lengths."""
    found: dict[Key, Batch] = {}
    for size, length, decode, partial, pattern in product(
        _BATCH_SIZES, _LENGTHS, _DECODE_SHARES, _PARTIAL_SHARES, _PATTERNS
    ):
        shares = list(islice(cycle(pattern), size))
        contexts = [math.ceil(length * share) for share in shares]
        decodes = math.ceil(size * decode)
        partials = decodes + math.ceil((size - decodes) * partial)
        queries = []
        for index, (context, share) in enumerate(zip(contexts, shares, strict=True)):
            cached = math.ceil(context // block_size * share / 2) * block_size
            cached = cached - block_size if cached == context else cached
            if index < decodes:
                queries.append(1)
            else:
                queries.append(context - cached if index < partials else context)
        key = (
            next_power_of_2(max(queries)),
            next_power_of_2(max(contexts)),
            next_power_of_2(sum(queries) // size),
            next_power_of_2(sum(contexts) // size),
        )
        found.setdefault(key, tuple(zip(queries, contexts, strict=True)))
    return found


def _walk(batch: Batch, tokens: Array, tile: Array) -> tuple[Array, Array, Array, Array]:
    """Per KV head: programs, tiles of all, tiles of the longest, keys loaded."""
    programs, steps, longest, keys = (np.zeros_like(tile) for _ in range(4))
    for query, context in batch:
        for width in np.unique(tokens):
            at = tokens == width
            blocks = math.ceil(query / width)
            programs[at] += blocks
            steps[at] += blocks * np.ceil(context / tile[at])
            longest[at] = np.maximum(longest[at], np.ceil(context / tile[at]))
            keys[at] += blocks * context
    return programs, steps, longest, keys


def _candidates(gpu: GpuArch, batch: Batch, problem: Mapping[str, Any]) -> Candidates:
    knobs = grid(_SPACE)
    rows, tile = knobs["block_m"], knobs["tile"]
    warps, stages = knobs["num_warps"], knobs["num_stages"]
    group = problem["num_queries_per_kv"]
    heads, dim = problem["num_query_heads"] // group, problem["head_size_padded"]
    # Table loads inside the loop take every other stage: 3 and 4 stages are one buffer, 5 two.
    buffers = np.where(stages > 1, np.maximum(1.0, (stages - 1) // 2), 0.0)
    tiles = Tiles(rows, tile, np.full_like(tile, dim), warps, stages)
    estimate = estimate_attention(tiles, dim, buffers, gpu, _LOAD_INSTRUCTIONS)
    programs, steps, longest, keys = _walk(batch, np.maximum(1.0, rows // group), tile)
    io_bytes = 4.0 * sum(query for query, _ in batch) * heads * group * dim
    launch = Launch(
        grid=programs * heads,
        loop_steps=steps / programs,
        longest_steps=longest,
        flops=4.0 * rows * tile * dim * steps * heads,
        matrix_class=estimate.matrix_class,
        peak_tflops=gpu.peak_tflops["fp16"],
        dram_bytes=4.0 * sum(context for _, context in batch) * heads * dim + io_bytes,
        l2_bytes=4.0 * keys * heads * dim + io_bytes,
        step_bytes=4.0 * tile * dim,
        shared_step_bytes=estimate.shared_step_bytes,
        instructions=estimate.instructions,
        depth=estimate.depth,
        rows=rows,
        cols=tile,
        **fitting(estimate.registers, estimate.shared_bytes, warps, gpu),
    )
    return Candidates(knobs, (launch,), estimate.shared_bytes <= gpu.shared_bytes_per_block)
