"""Measures, when an engine starts, what decides how to preempt: the link and the prefill.

Both are steps like any other, but for their blocks: they touch the trash block alone. On a GPU all
of it takes a few milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from runtime.batch import ScheduledBatch
from runtime.block_pool import TRASH_BLOCK
from runtime.preemption import PreemptionCost
from runtime.scheduler_config import SchedulerConfig
from runtime.sequence import Request, Sequence

_NUM_TOKENS = 256
_NUM_TOKENS_ON_CPU = 16
"""Of the prefill that is timed."""
_NUM_COPIES = 8
_NUM_RUNS = 3
"""The first run of anything also loads code; the fastest counts."""
_ENOUGH_S = 0.05
"""What has taken so long is not run again."""
_SHORTEST_S = 1e-6
"""Where a clock has not moved."""

Run = Callable[[ScheduledBatch], object]
"""Performs a step and waits for it."""


def add_preemption_cost(
    limits: SchedulerConfig, run: Run, bytes_per_block: int, *, is_asynchronous: bool
) -> SchedulerConfig:
    """Return the limits with the cost of preemption as measured, unless they have one.

    Args:
        limits: of the engine, with one host block at least.
        run: of the engine's runner; no request may have been served yet.
        bytes_per_block: of all layers.
        is_asynchronous: whether the device is a GPU, which needs more work to be busy.
    """
    if limits.preemption_cost is not None:
        return limits
    num_tokens = _NUM_TOKENS if is_asynchronous else _NUM_TOKENS_ON_CPU
    cost = measure_preemption_cost(run, limits, bytes_per_block, num_tokens)
    return replace(limits, preemption_cost=cost)


def measure_preemption_cost(
    run: Run,
    limits: SchedulerConfig,
    bytes_per_block: int,
    num_tokens: int,
    clock: Callable[[], float] = time.perf_counter,
) -> PreemptionCost:
    """Time a prefill, and moves of the trash block to the host and back.

    Args:
        run: of the engine's runner; no request may have been served yet.
        limits: of the engine, with one host block at least.
        bytes_per_block: of all layers.
        num_tokens: of the prefill, fewer if the limits are lower.
        clock: seconds since some moment.
    """
    num_tokens = min(num_tokens, limits.max_num_batched_tokens, limits.max_model_len - 1)
    prefill_s = _fastest(run, _prefill(num_tokens, limits.block_size), clock)
    num_copies = min(_NUM_COPIES, limits.num_host_blocks)
    moves = ScheduledBatch(0)
    moves.swap_outs += [(TRASH_BLOCK, host) for host in range(num_copies)]
    moves.swap_ins += [(0, TRASH_BLOCK)] * num_copies
    move_s = _fastest(run, moves, clock)
    return PreemptionCost(
        bytes_per_block=bytes_per_block,
        link_bytes_per_s=2 * num_copies * bytes_per_block / move_s,
        prefill_tokens_per_s=num_tokens / prefill_s,
    )


def _prefill(num_tokens: int, block_size: int) -> ScheduledBatch:
    """One prompt, all of it in the trash block; nothing is sampled."""
    sequence = Sequence(Request("calibration", (0,) * num_tokens), (0, 0, 0), num_tokens + 1)
    sequence.row = 0
    sequence.block_table = [TRASH_BLOCK] * -(-num_tokens // block_size)
    batch = ScheduledBatch(0)
    batch.add_chunk(sequence, num_tokens, block_size)
    batch.new_rows.append(sequence)
    return batch


def _fastest(run: Run, batch: ScheduledBatch, clock: Callable[[], float]) -> float:
    """Seconds of the fastest of a few runs."""
    times: list[float] = []
    while len(times) < _NUM_RUNS and sum(times) < _ENOUGH_S:
        started = clock()
        run(batch)
        times.append(clock() - started)
    return max(min(times), _SHORTEST_S)
