"""The test of the test: each bug, planted into the core, must be caught by the shadow engine."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from shadow import ShadowEngine
from shadow_plants import (
    PLANTS,
    Plant,
    let_parked_beams_keep_their_blocks,
    resume_while_a_step_is_in_flight,
)
from shadow_workload import random_config, run

from runtime.sampling_params import BeamSearchParams, SamplingParams
from runtime.scheduler_config import SchedulerConfig, SchedulingPolicy
from runtime.sequence import Request


def forty_tight_engines() -> None:
    """Tight pools and no forecast, so that sharing, copying and preempting are common."""
    for seed in range(40):
        rng = Random(seed)
        tight = {"num_blocks": 22, "block_size": 3, "num_host_blocks": 20}
        if seed % 2:
            tight |= {"num_blocks": 34, "block_size": 2}
        config = random_config(rng, **tight, enable_forecast=False)
        run(ShadowEngine(config), rng, num_steps=150)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_caught(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, IndexError, KeyError)):
        forty_tight_engines()


def beams_that_need_each_others_blocks() -> None:
    """Four beams in a pool that holds one of them."""
    engine = ShadowEngine(
        SchedulerConfig(block_size=1, num_blocks=14, max_num_seqs=4, max_num_batched_tokens=16)
    )
    beams = BeamSearchParams(beam_width=4, max_tokens=8)
    for number in range(2):
        engine.submit(Request(f"r{number}", (1, 2, 3, 4, 5, 6), beam_search=beams))
    engine.drain()


def resume_before_the_last_token_arrived() -> None:
    """A sequence gives way with a token in flight; then the one it made room for is aborted."""
    engine = ShadowEngine(
        SchedulerConfig(
            block_size=4,
            num_blocks=7,
            max_num_seqs=2,
            max_num_batched_tokens=32,
            policy=SchedulingPolicy.PRIORITY,
            enable_prefix_caching=False,
        )
    )
    low = Request("low", tuple(range(1, 9)), SamplingParams(max_tokens=6), priority=1)
    high = Request("high", tuple(range(1, 19)), SamplingParams(max_tokens=2), priority=0)
    engine.submit(low)
    assert engine.launch()
    engine.submit(high)
    assert not engine.launch(), "what was preempted is fenced, so nothing can run yet"
    engine.abort("high")
    engine.launch()
    engine.drain()


@pytest.mark.parametrize(
    ("plant", "scenario"),
    [
        (let_parked_beams_keep_their_blocks, beams_that_need_each_others_blocks),
        (resume_while_a_step_is_in_flight, resume_before_the_last_token_arrived),
    ],
)
def test_a_bug_in_a_rare_corner_is_caught_where_it_shows(
    plant: Plant, scenario: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario()
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        scenario()
