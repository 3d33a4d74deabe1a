"""Random requests and random events for the shadow engine, from one seed."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from shadow import ShadowEngine
from shadow_model import EOS, VOCAB_SIZE

from runtime.preemption import PreemptionCost, PreemptionMode
from runtime.sampling_params import BeamSearchParams, SamplingParams
from runtime.scheduler_config import SchedulerConfig, SchedulingPolicy
from runtime.sequence import Request

_BOILERPLATE = tuple(1 + (i * i) % (VOCAB_SIZE - 1) for i in range(64))
"""Prompts begin with a piece of this, so that they share prefixes."""


def random_config(rng: Random, **fixed: object) -> SchedulerConfig:
    """A small engine, so that everything is short; `fixed` fields override."""
    max_num_seqs = rng.randint(2, 6)
    seats = fixed.get("max_num_seqs", max_num_seqs)
    assert isinstance(seats, int)
    chosen: dict[str, object] = {
        "block_size": rng.choice([1, 2, 3, 4, 8]),
        "num_host_blocks": rng.choice([0, 4, 16]),
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": seats + rng.randint(0, 24),
        "max_model_len": 48,
        "policy": rng.choice(list(SchedulingPolicy)),
        "enable_prefix_caching": rng.random() < 0.8,
        "long_prefill_token_threshold": rng.choice([None, 3]),
        "preemption_mode": rng.choice([None, *PreemptionMode]),
        "preemption_cost": PreemptionCost(100, 1100.0, 10.0),
        "enable_forecast": rng.random() < 0.5,
        "expected_output_tokens": rng.choice([1, 8]),
        "max_steps_in_flight": rng.choice([1, 2]),
    }
    chosen |= fixed
    if "num_blocks" not in chosen:
        size = chosen["block_size"]
        assert isinstance(size, int)
        chosen["num_blocks"] = 2 + -(-rng.randint(24, 60) // size)
    return SchedulerConfig(**chosen)  # type: ignore[arg-type]


def random_request(rng: Random, request_id: str) -> Request:
    """A request with a shared beginning; some have siblings, beams, a salt or an adapter."""
    shared = _BOILERPLATE[: rng.choice([0, 4, 9, 12, 16])]
    repeats = bool(shared) and rng.random() < 0.25  # nothing of its own: a prompt seen before
    own = tuple(rng.randrange(1, VOCAB_SIZE) for _ in range(0 if repeats else rng.randint(1, 12)))
    max_tokens = rng.choice([1, 2, 5, 12, None])
    beam_search = None
    n = rng.choice([1, 1, 1, 2, 4])
    if rng.random() < 0.15:
        n = 1
        beam_search = BeamSearchParams(rng.randint(1, 4), max_tokens or 6)
    return Request(
        request_id,
        shared + own,
        SamplingParams(
            n=n,
            max_tokens=max_tokens,
            min_tokens=rng.choice([0, 1]),
            seed=rng.choice([None, 5]),
            stop_token_ids=rng.choice([(), (3,)]),
            ignore_eos=rng.random() < 0.2,
            prompt_logprobs=rng.choice([None, None, None, 1]),
        ),
        beam_search=beam_search,
        eos_token_ids=frozenset({EOS}),
        priority=rng.randint(0, 2),
        cache_salt=rng.choice([None, None, "one"]),
        lora_name=rng.choice([None, None, "one"]),
        run_ahead=rng.random() < 0.9,
    )


def random_event(engine: ShadowEngine, rng: Random, max_live: int = 12) -> None:
    """One thing that may happen between two others."""
    dice = rng.random()
    live = list(engine.tickets)
    if dice < 0.15:
        if len(live) < max_live:
            number = engine.counts["taken"] + engine.counts["refused"]
            request = random_request(rng, f"r{number}")
            engine.submit(request)
            if rng.random() < 0.1:  # others with the same prompt, before any of it is computed
                for copy in range(1, 3):
                    engine.submit(replace(request, request_id=f"r{number + copy}"))
    elif dice < 0.155:
        if live:
            engine.abort(rng.choice(live))
    elif dice < 0.16:
        sequences = engine.scheduler.sequences_of(rng.choice(live)) if live else []
        stoppable = [s for s in sequences if s.num_output_tokens and not s.is_beam]
        if stoppable:
            engine.stop(rng.choice(stoppable))
    elif dice < 0.6:
        if engine.can_launch:
            engine.launch()
    elif engine.launched:
        engine.collect()
    else:
        engine.step()


def run(engine: ShadowEngine, rng: Random, num_steps: int) -> None:
    """Random events until `num_steps` steps have run, then until every request has ended."""
    while engine.num_steps < num_steps:
        random_event(engine, rng)
    engine.drain()
