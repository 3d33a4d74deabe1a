"""How well the engine uses its KV blocks on a workload: hits, waste, sharing. Exact, not timed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from runtime.bench.contenders import serve
from runtime.bench.workload import Workload
from runtime.config import EngineConfig
from runtime.engine import LLMEngine
from runtime.sampling_params import SamplingParams

_NUM_SAMPLES = 4
_LONG_PROMPT = 256
_SHORT_OUTPUT = 32


def measure_kv(
    folder: Path, dtype: str, workload: Workload, kv_cache_dtype: str = "auto"
) -> dict[str, Any]:
    """Serve the workload once more and count blocks after every step.

    Returns:
        `prefix_hit_rate`: share of prompt tokens found in the prefix cache. `kv_waste`: mean over
        steps of the share of slots, in blocks that are held, that no known token is for; a block
        that several sequences share counts once. `bytes_per_token`: of all layers, scales included;
        `blocks_per_gib`: what of them fits. `parallel_sampling`: most blocks held by one
        request of n=4, and by four requests that cannot share, over a prompt of 256 tokens.
    """
    config = EngineConfig(folder, dtype=dtype, kv_cache_dtype=kv_cache_dtype, skip_tokenizer=True)
    engine = LLMEngine(config)
    wastes: list[float] = []

    def count() -> None:
        waste = _waste(engine)
        if waste is not None:
            wastes.append(waste)

    serve(engine, workload, count)
    stats = engine.scheduler.stats()
    shared = _most_held(config, engine, num_requests=1, n=_NUM_SAMPLES)
    alone = _most_held(config, engine, num_requests=_NUM_SAMPLES, n=1)
    return {
        "block_size": engine.scheduler.config.block_size,
        "bytes_per_token": engine.plan.kv.token_bytes(engine.plan.model),
        "blocks_per_gib": (1 << 30) // engine.plan.bytes_per_block,
        "prefix_hit_rate": stats.num_prefix_hits / max(1, stats.num_prefix_queries),
        "kv_waste": sum(wastes) / max(1, len(wastes)),
        "parallel_sampling": {
            "n": _NUM_SAMPLES,
            "blocks_shared": shared,
            "blocks_unshared": alone,
            "saving": 1 - shared / alone,
        },
    }


def _waste(engine: LLMEngine) -> float | None:
    """Share of slots in held blocks that no known token is for; None where none is held."""
    size = engine.scheduler.config.block_size
    filled: dict[int, int] = {}
    for sequence in engine.scheduler.roster.running.sequences:
        for index, block_id in enumerate(sequence.block_table):
            used = min(size, len(sequence.token_ids) - index * size)
            filled[block_id] = max(filled.get(block_id, 0), used)
    return 1 - sum(filled.values()) / (size * len(filled)) if filled else None


def _most_held(config: EngineConfig, engine: LLMEngine, *, num_requests: int, n: int) -> int:
    """Most blocks held at once by requests over one prompt, without a prefix cache."""
    fresh = LLMEngine(
        EngineConfig(
            config.model,
            dtype=config.dtype,
            kv_cache_dtype=config.kv_cache_dtype,
            skip_tokenizer=True,
            enable_prefix_caching=False,
        ),
        model=engine.runner.model,
    )
    source = random.Random(0)
    length = min(_LONG_PROMPT, fresh.model_config.max_position - _SHORT_OUTPUT)
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
