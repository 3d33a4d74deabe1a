"""Probe: what the KV blocks hold: many requests, little waste, one very long sequence."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from evidence.engine.engines import free, make_engine, requests, wait
from evidence.engine.probe import Tell

from runtime.bench.contenders import serve
from runtime.bench.kv_facts import unused_share
from runtime.engine import LLMEngine


def main(request: Mapping[str, Any], tell: Tell) -> None:
    """Hold many, then waste, then one long sequence.

    Args:
        request: `folder`, `max_len` of all engines, `many`, `same_memory` and `long`, each with
            `engine` options and sizes.
        tell: an object for each.
    """
    shared = {"max_model_len": request["max_len"]}
    many = request["many"]
    engine = make_engine(request["folder"], shared | many["engine"])
    tell(
        block_size=engine.scheduler.config.block_size,
        bytes_per_token=engine.plan.kv.token_bytes(engine.plan.model),
    )
    tell(many=_held(engine, many))
    first = engine
    for number, block_size in enumerate(request["same_memory"]["block_sizes"]):
        if number == 1:  # of all, the second block size is worth least
            tell(long=_long(_again(first, request, request["long"]), request["long"]))
            free()
        engine = _again(first, request, request["same_memory"], block_size=block_size)
        found = _held(engine, request["same_memory"])
        limits = engine.scheduler.config
        slots = (limits.num_blocks - 1) * limits.block_size
        padded = slots // request["same_memory"]["longest"]
        found |= {"slots": slots, "padded_sequences": padded}
        found["times_padded"] = found["mean_sequences"] / max(1, padded)
        tell(same_memory={str(block_size): found})
        del engine
        free()


def _again(
    first: LLMEngine, request: Mapping[str, Any], part: Mapping[str, Any], **changes: Any
) -> LLMEngine:
    """Another engine over the same model; its blocks are of `part`'s number of slots."""
    options = {"max_model_len": request["max_len"], **part["engine"], **changes}
    size = options.get("block_size") or first.scheduler.config.block_size
    options |= {"block_size": size, "num_blocks": 2 + part["slots"] // size}
    return make_engine(request["folder"], options, first)


def _held(engine: LLMEngine, part: Mapping[str, Any]) -> dict[str, Any]:
    """Serve requests and look at the blocks after every step."""
    work = requests(
        "held",
        part["requests"],
        tuple(part["prompt"]),
        tuple(part["output"]),
        engine.model_config.vocab_size,
    )
    wastes: list[float] = []
    counts: list[int] = []
    while_short: list[int] = []
    """Sequences that held blocks while others waited for some."""

    def look() -> None:
        counts.append(len(engine.scheduler.roster.running.sequences))
        if engine.scheduler.stats().num_waiting:
            while_short.append(counts[-1])
        waste = unused_share(engine)
        if waste is not None and part["looks_at_waste"]:
            wastes.append(waste)

    wait()
    served = serve(engine, work, look)
    stats = engine.scheduler.stats()
    known = while_short or counts
    return {
        "requests": len(work.prompts),
        "finished": len(work.prompts),
        "seconds": served.seconds,
        "output_tokens_per_s": served.num_output_tokens / served.seconds,
        "most_sequences": max(counts),
        "mean_sequences": sum(known) / len(known),
        "kv_waste": sum(wastes) / len(wastes) if wastes else None,
        "preemptions": dict(stats.num_preemptions),
        "steps": len(counts),
    }


def _long(engine: LLMEngine, part: Mapping[str, Any]) -> dict[str, Any]:
    """One sequence up to the length of the context."""
    work = requests(
        "long", 1, (part["prompt"],) * 2, (part["output"],) * 2, engine.model_config.vocab_size
    )
    stamps: list[tuple[float, int]] = []
    started = time.perf_counter()

    def look() -> None:
        sequences = engine.scheduler.roster.running.sequences
        known = len(sequences[0].token_ids) if sequences else work.max_len
        stamps.append((time.perf_counter() - started, known))

    serve(engine, work, look)
    first = next(at for at, known in stamps if known > part["prompt"])
    rest = stamps[-1][0] - first
    return {
        "tokens": work.max_len,
        "finished": True,
        "seconds": stamps[-1][0],
        "first_token_s": first,
        "prompt_tokens_per_s": part["prompt"] / first,
        "ms_per_token": rest / max(1, part["output"] - 1) * 1e3,
    }
