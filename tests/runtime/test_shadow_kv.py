"""Property test of the whole core: any order of events, any small engine, no wrong KV ever."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from shadow import ShadowEngine
from shadow_model import EOS
from shadow_workload import random_config, random_event, random_request, run

from runtime.block_manager import BlockManager
from runtime.preemption import PreemptionCost, PreemptionMode
from runtime.sampling_params import BeamSearchParams, SamplingParams
from runtime.scheduler_config import SchedulerConfig, SchedulingPolicy
from runtime.sequence import Request, Sequence


class ShadowMachine(RuleBasedStateMachine):
    """Events in the order that Hypothesis chooses; the shadow engine checks after each."""

    @initialize(
        block_size=st.integers(1, 8),
        pool_tokens=st.integers(16, 64),
        num_host_blocks=st.sampled_from([0, 3, 24]),
        max_num_seqs=st.integers(1, 5),
        spare_tokens=st.integers(0, 20),
        policy=st.sampled_from(SchedulingPolicy),
        mode=st.sampled_from([None, *PreemptionMode]),
        prefix_caching=st.booleans(),
        max_steps_in_flight=st.integers(1, 2),
        enable_forecast=st.booleans(),
    )
    def start(
        self,
        block_size: int,
        pool_tokens: int,
        num_host_blocks: int,
        max_num_seqs: int,
        spare_tokens: int,
        policy: SchedulingPolicy,
        mode: PreemptionMode | None,
        prefix_caching: bool,
        max_steps_in_flight: int,
        enable_forecast: bool,
    ) -> None:
        self.num_requests = 0
        self.engine = ShadowEngine(
            SchedulerConfig(
                block_size=block_size,
                num_blocks=1 + -(-pool_tokens // block_size),
                num_host_blocks=num_host_blocks,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_seqs + spare_tokens,
                max_model_len=40,
                policy=policy,
                enable_prefix_caching=prefix_caching,
                preemption_mode=mode,
                preemption_cost=PreemptionCost(100, 1100.0, 10.0),
                enable_forecast=enable_forecast,
                expected_output_tokens=4,
                max_steps_in_flight=max_steps_in_flight,
            )
        )

    @rule(
        num_shared=st.integers(0, 12),
        own=st.lists(st.integers(1, 3), min_size=1, max_size=6),
        n=st.integers(1, 4),
        max_tokens=st.sampled_from([1, 3, 8, None]),
        beam_width=st.sampled_from([None, None, 1, 3]),
        priority=st.integers(0, 1),
        salt=st.sampled_from([None, "a"]),
    )
    def submit(
        self,
        num_shared: int,
        own: list[int],
        n: int,
        max_tokens: int | None,
        beam_width: int | None,
        priority: int,
        salt: str | None,
    ) -> None:
        self.num_requests += 1
        self.engine.submit(
            Request(
                f"r{self.num_requests}",
                (*range(5, 5 + num_shared), *own),
                SamplingParams(n=n if beam_width is None else 1, max_tokens=max_tokens),
                beam_search=(beam_width and BeamSearchParams(beam_width, max_tokens or 6)) or None,
                eos_token_ids=frozenset({EOS}),
                priority=priority,
                cache_salt=salt,
            )
        )

    @precondition(lambda self: self.engine.tickets)
    @rule(number=st.integers(0, 100))
    def abort(self, number: int) -> None:
        live = list(self.engine.tickets)
        self.engine.abort(live[number % len(live)])

    @precondition(lambda self: self.engine.can_launch)
    @rule()
    def launch(self) -> None:
        self.engine.launch()

    @precondition(lambda self: self.engine.launched)
    @rule()
    def collect(self) -> None:
        self.engine.collect()

    @rule(count=st.integers(2, 12))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.engine.step()

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "engine"):
            self.engine.check()

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.drain()


ShadowMachine.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestShadowMachine = ShadowMachine.TestCase


@pytest.mark.parametrize("seed", range(24))
def test_random_workloads_leave_no_wrong_kv(seed: int) -> None:
    rng = Random(seed)
    engine = ShadowEngine(random_config(rng))
    run(engine, rng, num_steps=120)


@pytest.mark.parametrize("mode", list(PreemptionMode))
@pytest.mark.parametrize("max_steps_in_flight", [1, 2])
def test_tight_pools_preempt_in_both_ways_and_every_request_ends(
    mode: PreemptionMode, max_steps_in_flight: int
) -> None:
    rng = Random(11)
    config = random_config(
        rng,
        block_size=2,
        num_blocks=26,
        num_host_blocks=64,
        max_num_seqs=6,
        max_num_batched_tokens=24,
        enable_forecast=False,
        preemption_mode=mode,
        max_steps_in_flight=max_steps_in_flight,
    )
    engine = ShadowEngine(config)
    run(engine, rng, num_steps=300)
    assert engine.scheduler.stats().num_preemptions[mode.value] >= 20
    assert engine.counts["copies"] > 0


@pytest.mark.parametrize("max_steps_in_flight", [1, 2])
def test_prompts_that_come_together_wait_for_the_first(
    max_steps_in_flight: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight of a kind at once, again and again, in pools that hold few of them."""
    waits = 0
    original = BlockManager.is_promised

    def is_promised(self: BlockManager, sequence: Sequence) -> bool:
        nonlocal waits
        found = original(self, sequence)
        waits += found
        return found

    monkeypatch.setattr(BlockManager, "is_promised", is_promised)
    for seed in range(6):
        rng = Random(seed)
        config = random_config(
            rng,
            block_size=2,
            num_blocks=rng.choice([26, 60]),
            enable_prefix_caching=True,
            max_steps_in_flight=max_steps_in_flight,
        )
        engine = ShadowEngine(config)
        for wave in range(6):
            template = random_request(rng, "template")
            for number in range(8):
                engine.submit(replace(template, request_id=f"w{wave}-{number}"))
            for _ in range(12):
                random_event(engine, rng)
        engine.drain()
    assert waits > 100


@pytest.mark.parametrize("chunk", range(1, 14))
def test_every_chunk_size_gives_the_same_tokens(chunk: int) -> None:
    rng = Random(chunk)
    config = random_config(
        rng, max_num_seqs=2, max_num_batched_tokens=16, long_prefill_token_threshold=chunk
    )
    engine = ShadowEngine(config)
    for number in range(6):
        engine.submit(random_request(rng, f"r{number}"))
    engine.drain()


def test_unchunked_prefill_and_a_synchronous_engine_work_too() -> None:
    rng = Random(5)
    config = random_config(
        rng,
        enable_chunked_prefill=False,
        long_prefill_token_threshold=None,
        max_num_batched_tokens=48,
        max_steps_in_flight=1,
    )
    engine = ShadowEngine(config)
    while engine.num_steps < 200:
        random_event(engine, rng)
    engine.drain()
