"""Who comes first and who gives way; the forecast that spares it."""

from __future__ import annotations

import pytest
from scheduler_scenario import make, request, run_step, work

from runtime.admission import OutputForecast
from runtime.errors import (
    InvalidParameterError,
)
from runtime.preemption import PreemptionCost, PreemptionMode
from runtime.queue import SequenceQueue
from runtime.scheduler import Scheduler
from runtime.scheduler_config import SchedulingPolicy
from runtime.sequence import Sequence, SequenceStatus


def crowded(**fields: object) -> tuple[Scheduler, Sequence, Sequence]:
    """Two sequences in a pool that soon holds one: the first is about to need a block."""
    defaults: dict[str, object] = {"num_blocks": 7, "num_host_blocks": 8}
    scheduler = make(**(defaults | fields))
    first = scheduler.add_request(request("a", 8, max_tokens=12))
    second = scheduler.add_request(request("b", 8, first=40, max_tokens=12))
    return scheduler, first, second


@pytest.mark.parametrize("mode", list(PreemptionMode))
def test_the_later_sequence_gives_way_and_resumes_where_it_was(mode: PreemptionMode) -> None:
    scheduler, first, second = crowded(preemption_mode=mode)
    outputs = {"a": iter(range(100, 200)), "b": iter(range(200, 300))}
    seen: set[SequenceStatus] = set()
    while scheduler.has_unfinished:
        batch = scheduler.schedule()
        assert not batch.is_empty
        scheduler.finish_step(batch, [next(outputs[s.request.request_id]) for s in batch.samples])
        seen.add(second.status)
        assert second.num_prompt_tokens == 8
    assert first.num_preemptions == 0
    assert second.num_preemptions >= 1
    assert first.output_token_ids == list(range(100, 112))
    assert second.output_token_ids == list(range(200, 212))
    away = SequenceStatus.SWAPPED if mode is PreemptionMode.SWAP else SequenceStatus.WAITING
    assert away in seen
    assert scheduler.stats().num_preemptions[mode.value] == second.num_preemptions


def test_swapped_blocks_are_reused_only_after_the_step_that_saves_them() -> None:
    scheduler, first, second = crowded(preemption_mode=PreemptionMode.SWAP)
    while second.status is not SequenceStatus.SWAPPED:
        batch = run_step(scheduler)
    saved = {device for device, _ in batch.swap_outs}
    assert len(saved) == 3
    assert not saved & set(first.block_table)
    assert work(batch) == [], "the first one waits for the copy"
    assert work(run_step(scheduler)) == [("a", first.num_computed_tokens - 1, 1)]
    assert saved & set(first.block_table)


def test_a_full_host_pool_falls_back_to_recomputing() -> None:
    scheduler, _, second = crowded(preemption_mode=PreemptionMode.SWAP, num_host_blocks=1)
    while second.status is not SequenceStatus.WAITING or not second.num_preemptions:
        run_step(scheduler)
    assert scheduler.stats().num_preemptions == {"recompute": 1, "swap": 0}


def test_first_come_first_served_ignores_priorities() -> None:
    scheduler = make(max_num_seqs=1)
    scheduler.add_request(request("a", 4, priority=5, max_tokens=1))
    scheduler.add_request(request("b", 4, priority=0, max_tokens=1))
    assert work(run_step(scheduler)) == [("a", 0, 4)]


def test_a_better_priority_is_served_first_and_takes_a_seat() -> None:
    scheduler = make(max_num_seqs=1, policy=SchedulingPolicy.PRIORITY)
    low = scheduler.add_request(request("low", 4, priority=5))
    scheduler.add_request(request("other", 4, priority=5))
    run_step(scheduler)
    scheduler.add_request(request("high", 4, priority=0, max_tokens=2))
    assert work(run_step(scheduler)) == [("high", 0, 4)]
    assert low.status is SequenceStatus.WAITING
    run_step(scheduler)
    assert work(run_step(scheduler)) == [("low", 0, 5)], "before the later one of its priority"


def test_the_first_in_line_is_not_overtaken_by_one_that_fits() -> None:
    scheduler = make(num_blocks=9)
    scheduler.add_request(request("a", 16, max_tokens=4))
    run_step(scheduler)
    scheduler.add_request(request("b", 28, max_tokens=2))
    scheduler.add_request(request("c", 4))
    assert work(run_step(scheduler)) == [("a", 16, 1)]


def test_the_cheaper_way_to_preempt_is_chosen() -> None:
    cost = PreemptionCost(bytes_per_block=1000, link_bytes_per_s=10_000, prefill_tokens_per_s=100.0)
    assert cost.swap_s(2) == pytest.approx(0.4)
    assert cost.choose(num_tokens=41, num_blocks=2) is PreemptionMode.SWAP
    assert cost.choose(num_tokens=39, num_blocks=2) is PreemptionMode.RECOMPUTE
    unmeasured = PreemptionCost(1000, None, 100.0)
    assert unmeasured.choose(10_000, 1) is PreemptionMode.RECOMPUTE
    with pytest.raises(InvalidParameterError, match="link_bytes_per_s"):
        PreemptionCost(1000, 0.0, 100.0)


def test_the_forecast_holds_a_request_back_until_it_can_stay() -> None:
    eager, wary = make(num_blocks=9), make(num_blocks=9, expected_output_tokens=16)
    for scheduler in (eager, wary):
        scheduler.add_request(request("a", 8, max_tokens=16))
        run_step(scheduler)
        scheduler.add_request(request("b", 8, max_tokens=16))
        run_step(scheduler)
    assert eager.stats().num_running == 2
    assert wary.stats().num_running == 1, "together they would grow to twelve of eight blocks"


def test_the_forecast_finds_the_worst_moment_and_learns() -> None:
    forecast = OutputForecast(10)
    lines = [Sequence(request(name, 4), (0, 0, 0), 1000) for name in "ab"]
    lines[1].token_ids += [1] * 6  # 6 of 10 are written: 4 are left, then 10 tokens are freed
    assert [forecast.num_tokens_left(line) for line in lines] == [10, 4]
    assert forecast.peak_growth(lines, block_size=1) == 8, "both grow by 4, then one is gone"
    forecast.observe(lines[1])
    assert forecast.expected_output_tokens == pytest.approx(9.75)


def test_a_queue_is_ordered_and_forgets_what_is_removed() -> None:
    queue = SequenceQueue()
    lines = [Sequence(request(str(i), 2), (i % 3, i, 0), 100) for i in range(60)]
    for line in lines:
        queue.push(line)
    for line in lines[:50]:
        queue.remove(line)
    assert len(queue) == 10
    order = []
    while (head := queue.peek()) is not None:
        order.append(head.key)
        queue.remove(head)
    assert order == sorted(order)
    assert len(order) == 10
