"""How sequences end, and which requests are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scheduler_scenario import make, request, run_step

from runtime.batch import ScheduledBatch
from runtime.errors import (
    DuplicateRequestError,
    InvalidParameterError,
    NeverFitsError,
    PromptTooLongError,
    QueueFullError,
)
from runtime.preemption import PreemptionMode
from runtime.sampling_params import BeamSearchParams
from runtime.scheduler import Scheduler
from runtime.sequence import FinishReason, SequenceStatus


@pytest.mark.parametrize(
    ("fields", "tokens", "reason"),
    [
        ({"max_tokens": 3}, [5, 5, 5], FinishReason.LENGTH),
        ({"eos_token_ids": frozenset({0})}, [5, 0], FinishReason.STOP),
        ({"stop_token_ids": (8,)}, [5, 8], FinishReason.STOP),
        (
            {"eos_token_ids": frozenset({0}), "ignore_eos": True, "max_tokens": 3},
            [0, 0, 0],
            FinishReason.LENGTH,
        ),
        ({"eos_token_ids": frozenset({0}), "min_tokens": 3}, [0, 5, 0], FinishReason.STOP),
        ({"stop_token_ids": (8,), "ignore_eos": True}, [8], FinishReason.STOP),
    ],
)
def test_a_sequence_ends_where_it_should(
    fields: dict[str, object], tokens: list[int], reason: FinishReason
) -> None:
    scheduler = make()
    leader = scheduler.add_request(request("a", 4, **fields))  # type: ignore[arg-type]
    for token_id in tokens:
        assert not leader.is_finished
        run_step(scheduler, token_id)
    assert leader.finish_reason is reason
    assert leader.output_token_ids == tokens
    assert not scheduler.has_unfinished


def test_without_max_tokens_the_context_is_the_bound() -> None:
    scheduler = make(max_model_len=9)
    leader = scheduler.add_request(request("a", 5, max_tokens=None))
    while scheduler.has_unfinished:
        run_step(scheduler)
    assert leader.finish_reason is FinishReason.LENGTH
    assert len(leader.token_ids) == 9


def abort_while_waiting(scheduler: Scheduler) -> None:
    assert scheduler.sequences_of("a")[0].status is SequenceStatus.WAITING


def abort_while_running(scheduler: Scheduler) -> None:
    run_step(scheduler)
    assert scheduler.sequences_of("a")[0].status is SequenceStatus.RUNNING


def abort_in_the_middle_of_the_prompt(scheduler: Scheduler) -> None:
    run_step(scheduler)
    assert scheduler.sequences_of("a")[0].num_output_tokens == 0


def abort_in_flight(scheduler: Scheduler) -> None:
    scheduler.schedule()
    scheduler.schedule()


def abort_while_preempted(scheduler: Scheduler) -> None:
    run_step(scheduler)
    batch = ScheduledBatch(99)
    scheduler.roster.preempt(scheduler.sequences_of("a")[0], batch)


@pytest.mark.parametrize("mode", list(PreemptionMode))
@pytest.mark.parametrize(
    ("reach", "num_prompt_tokens"),
    [
        (abort_while_waiting, 6),
        (abort_while_running, 6),
        (abort_in_the_middle_of_the_prompt, 20),
        (abort_in_flight, 6),
        (abort_while_preempted, 6),
    ],
)
def test_an_abort_works_once_in_every_state(
    reach: Callable[[Scheduler], None], num_prompt_tokens: int, mode: PreemptionMode
) -> None:
    scheduler = make(num_host_blocks=8, preemption_mode=mode)
    leader = scheduler.add_request(request("a", num_prompt_tokens, n=2))
    reach(scheduler)
    ended = scheduler.abort("a")
    assert leader in ended
    assert all(s.finish_reason is FinishReason.ABORT for s in ended)
    assert scheduler.abort("a") == []
    assert not scheduler.has_unfinished
    for batch in list(scheduler.roster.in_flight):
        result = scheduler.finish_step(batch, [9] * len(batch.samples))
        assert result.accepted == result.finished == []
    scheduler.blocks.end_step(99)  # the step that was made up to preempt
    scheduler.check_integrity()
    assert scheduler.blocks.pool.num_free == 32
    assert scheduler.blocks.host_pool.num_free == 8
    assert scheduler.schedule().is_empty
    scheduler.add_request(request("a", 4))


def test_ending_twice_is_an_error() -> None:
    scheduler = make()
    leader = scheduler.add_request(request("a", 4))
    scheduler.finish_sequence(leader, FinishReason.STOP)
    with pytest.raises(AssertionError, match="ends twice"):
        scheduler.finish_sequence(leader, FinishReason.ABORT)


def test_what_can_never_fit_is_refused_and_leaves_no_trace() -> None:
    scheduler = make(num_blocks=5)  # 16 tokens
    with pytest.raises(PromptTooLongError, match="max_model_len=64"):
        scheduler.add_request(request("a", 64))
    with pytest.raises(NeverFitsError, match="needs 17 tokens of KV cache, but the engine has 16"):
        scheduler.add_request(request("a", 10, max_tokens=8))
    with pytest.raises(NeverFitsError, match="5 sequences at once"):
        scheduler.add_request(request("a", 4, n=5))
    with pytest.raises(InvalidParameterError, match="n=2"):
        scheduler.add_request(request("a", 4, n=2, beam_search=BeamSearchParams(2)))
    assert not scheduler.has_unfinished
    assert scheduler.stats().num_waiting == 0


def test_what_just_fits_is_taken_and_ends() -> None:
    scheduler = make(num_blocks=5)
    leader = scheduler.add_request(request("a", 10, max_tokens=7))
    while scheduler.has_unfinished:
        run_step(scheduler)
    assert leader.num_output_tokens == 7


def test_an_open_ended_request_gets_what_the_pool_holds() -> None:
    scheduler = make(num_blocks=5)
    leader = scheduler.add_request(request("a", 10, max_tokens=None))
    while scheduler.has_unfinished:
        run_step(scheduler)
    assert len(leader.token_ids) == 17


def test_the_queue_is_bounded_but_the_preempted_do_not_count() -> None:
    scheduler = make(max_queue_len=2, max_num_seqs=1)
    scheduler.add_request(request("a", 4))
    run_step(scheduler)
    scheduler.add_request(request("b", 4))
    scheduler.add_request(request("c", 4))
    with pytest.raises(QueueFullError, match="2 requests are waiting"):
        scheduler.add_request(request("d", 4))
    with pytest.raises(DuplicateRequestError, match="'b' is in use"):
        scheduler.add_request(request("b", 4))
    scheduler.abort("b")
    scheduler.add_request(request("d", 4))
