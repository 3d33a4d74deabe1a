"""How well the engine uses its KV blocks on a workload: hits, waste, sharing. Exact, not timed."""

from __future__ import annotations

import random
from typing import Any

from runtime.bench.contenders import EngineContender
from runtime.bench.setup import Setup
from runtime.bench.workload import Workload
from runtime.engine import LLMEngine
from runtime.sampling_params import SamplingParams

_NUM_SAMPLES = 4
_LONG_PROMPT = 256
_SHORT_OUTPUT = 32
LEAST_LEN = _LONG_PROMPT + _SHORT_OUTPUT
"""Tokens that a sequence must be allowed to have, unless the model's context is shorter."""


def measure_kv(setup: Setup, contender: EngineContender, workload: Workload) -> dict[str, Any]:
    """Serve the workload once more and count blocks after every step.

    Returns:
        `prefix_hit_rate`: share of prompt tokens found in the prefix cache. `kv_waste`: mean over
        steps of the share of slots, in blocks that are held, that no known token is for; a block
        that several sequences share counts once. `most_sequences`: that held blocks at once.
        `bytes_per_token`: of all layers, scales included; `blocks_per_gib`: what of them fits.
        `parallel_sampling`: most blocks held by one request of n=4, and by four requests that
        cannot share, over a prompt of 256 tokens.
    """
    engine = contender.engine
    wastes: list[float] = []
    most = 0

    def count() -> None:
        nonlocal most
        most = max(most, len(engine.scheduler.roster.running.sequences))
        waste = unused_share(engine)
        if waste is not None:
            wastes.append(waste)

    before = engine.scheduler.stats()
    contender.serve(workload, count)
    stats = engine.scheduler.stats()
    num_queries = stats.num_prefix_queries - before.num_prefix_queries
    shared = _most_held(setup, engine, num_requests=1, n=_NUM_SAMPLES)
    alone = _most_held(setup, engine, num_requests=_NUM_SAMPLES, n=1)
    return {
        "block_size": engine.scheduler.config.block_size,
        "num_blocks": engine.scheduler.config.num_blocks,
        "bytes_per_token": engine.plan.kv.token_bytes(engine.plan.model),
        "blocks_per_gib": (1 << 30) // engine.plan.bytes_per_block,
        "prefix_hit_rate": (stats.num_prefix_hits - before.num_prefix_hits) / max(1, num_queries),
        "kv_waste": sum(wastes) / max(1, len(wastes)),
        "most_sequences": most,
        "parallel_sampling": {
            "n": _NUM_SAMPLES,
            "blocks_shared": shared,
            "blocks_unshared": alone,
            "saving": 1 - shared / alone,
        },
    }


def unused_share(engine: LLMEngine) -> float | None:
    """Share of slots in held blocks that no known token is for; None where none is held."""
    size = engine.scheduler.config.block_size
    filled: dict[int, int] = {}
    for sequence in engine.scheduler.roster.running.sequences:
        for index, block_id in enumerate(sequence.block_table):
            used = min(size, len(sequence.token_ids) - index * size)
            filled[block_id] = max(filled.get(block_id, 0), used)
    return 1 - sum(filled.values()) / (size * len(filled)) if filled else None


def _most_held(setup: Setup, engine: LLMEngine, *, num_requests: int, n: int) -> int:
    """Most blocks held at once by requests over one prompt, without a prefix cache."""
    size = engine.scheduler.config.block_size
    per_sequence = 2 - (-LEAST_LEN // size)
    fresh = LLMEngine(
        setup.engine_config(
            block_size=size,
            num_blocks=1 + _NUM_SAMPLES * per_sequence,
            max_num_seqs=_NUM_SAMPLES,
            enable_prefix_caching=False,
            enforce_eager=True,
        ),
        model=engine.runner.model,
        ops=engine.plan.ops,
    )
    source = random.Random(0)
    length = min(_LONG_PROMPT, fresh.scheduler.config.max_model_len - _SHORT_OUTPUT)
    prompt = [source.randrange(fresh.model_config.vocab_size) for _ in range(length)]
    params = SamplingParams(n=n, seed=0, max_tokens=_SHORT_OUTPUT, ignore_eos=True)
    for index in range(num_requests):
        fresh.add_request(str(index), prompt, params)
    most = 0
    while fresh.has_unfinished:
        fresh.step()
        stats = fresh.scheduler.stats()
        most = max(most, stats.num_usable_blocks - stats.num_free_blocks)
    return most
