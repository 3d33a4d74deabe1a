"""Steps in small scenarios: chunks, slots, prefix hits, running ahead, siblings, beams."""

from __future__ import annotations

import subprocess
import sys

from scheduler_scenario import make, request, run_step, work

from runtime.batch import ScheduledBatch
from runtime.sampling_params import BeamSearchParams, SamplingParams
from runtime.sequence import FinishReason, Request


def test_the_core_imports_no_torch() -> None:
    code = "import runtime.scheduler, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_long_prompt_is_cut_by_the_budget_and_decodes_come_first() -> None:
    scheduler = make()
    scheduler.add_request(request("a", 8))
    scheduler.add_request(request("b", 30))
    assert work(run_step(scheduler)) == [("a", 0, 8), ("b", 0, 8)]
    second = run_step(scheduler)
    assert work(second) == [("a", 8, 1), ("b", 8, 15)]
    assert second.num_decodes == 1
    assert [s.request.request_id for s in second.samples] == ["a"], "b is not at its end yet"
    third = run_step(scheduler)
    assert work(third) == [("a", 9, 1), ("b", 23, 7)]
    assert third.sample_indices == [0, 1]
    assert third.output_indices() == [2, 0]


def test_slots_are_block_times_size_plus_offset() -> None:
    scheduler = make(max_num_batched_tokens=6)
    leader = scheduler.add_request(request("a", 10))
    assert run_step(scheduler).slot_mapping == [4, 5, 6, 7, 8, 9]
    assert run_step(scheduler).slot_mapping == [10, 11, 12, 13]
    assert leader.block_table == [1, 2, 3]
    decode = run_step(scheduler)
    assert (decode.starts, decode.slot_mapping, decode.table_updates) == ([10], [14], [])
    run_step(scheduler)
    grown = run_step(scheduler)
    assert (grown.slot_mapping, grown.table_updates) == ([16], [(0, 3, 4)])


def test_a_threshold_leaves_room_for_others_beside_a_long_prompt() -> None:
    scheduler = make(long_prefill_token_threshold=5)
    scheduler.add_request(request("a", 12))
    scheduler.add_request(request("b", 7))
    assert work(run_step(scheduler)) == [("a", 0, 5), ("b", 0, 5)]


def test_without_chunks_a_prompt_waits_until_it_fits_whole() -> None:
    scheduler = make(enable_chunked_prefill=False, max_num_batched_tokens=64)
    scheduler.add_request(request("a", 40))
    scheduler.add_request(request("b", 30))
    assert work(run_step(scheduler)) == [("a", 0, 40)]
    assert work(run_step(scheduler)) == [("a", 40, 1), ("b", 0, 30)]


def test_a_prefix_that_was_computed_before_is_skipped() -> None:
    scheduler = make(enable_prefix_caching=True)
    scheduler.add_request(request("a", 10))
    run_step(scheduler)
    again = scheduler.add_request(request("b", 10))
    assert work(run_step(scheduler)) == [("a", 10, 1), ("b", 8, 2)]
    assert again.num_cached_tokens == 8
    assert scheduler.stats().num_prefix_hits == 8


def test_a_prefix_that_is_being_computed_is_waited_for() -> None:
    scheduler = make(enable_prefix_caching=True, max_num_batched_tokens=32)
    for name in "abc":
        scheduler.add_request(request(name, 10))
    scheduler.add_request(request("other", 3, first=40))
    assert work(run_step(scheduler)) == [("a", 0, 10), ("other", 0, 3)], "others may pass"
    assert work(run_step(scheduler)) == [("a", 10, 1), ("other", 3, 1), ("b", 8, 2), ("c", 8, 2)]
    assert scheduler.stats().num_prefix_hits == 16


def test_a_long_prefix_is_waited_for_until_its_last_chunk_has_ended() -> None:
    scheduler = make(enable_prefix_caching=True)
    scheduler.add_request(request("a", 40))
    scheduler.add_request(request("b", 42))
    batches = [scheduler.schedule(), scheduler.schedule()]
    assert [work(batch) for batch in batches] == [[("a", 0, 16)], [("a", 16, 16)]]
    scheduler.finish_step(batches[0], [])
    batches.append(scheduler.schedule())
    assert work(batches[2]) == [("a", 32, 8)]
    scheduler.finish_step(batches[1], [])
    ahead = scheduler.schedule()
    assert work(ahead) == [("a", 40, 1)], "the end of the prefix is in flight"
    scheduler.finish_step(batches[2], [9])
    assert work(scheduler.schedule()) == [("a", 41, 1), ("b", 40, 2)]


def test_nobody_waits_for_a_prefix_whose_maker_is_gone() -> None:
    scheduler = make(enable_prefix_caching=True)
    scheduler.add_request(request("a", 40))
    scheduler.add_request(request("b", 40))
    assert work(run_step(scheduler)) == [("a", 0, 16)]
    scheduler.abort("a")
    assert work(run_step(scheduler)) == [("b", 16, 16)], "what was filled is found"


def test_whoever_scores_its_prompt_waits_for_no_prefix() -> None:
    scheduler = make(enable_prefix_caching=True, max_num_batched_tokens=32)
    scheduler.add_request(request("a", 10))
    prompt = tuple(range(1, 11))
    scheduler.add_request(Request("b", prompt, SamplingParams(prompt_logprobs=0)))
    assert work(run_step(scheduler)) == [("a", 0, 10), ("b", 0, 10)]


def test_requests_with_one_prefix_compute_it_once() -> None:
    for steps_in_flight in (1, 2):
        scheduler = make(
            enable_prefix_caching=True,
            num_blocks=200,
            max_num_seqs=16,
            max_num_batched_tokens=64,
            max_model_len=128,
            max_steps_in_flight=steps_in_flight,
        )
        for index in range(12):
            prompt = (*range(1, 81), *range(100 + 3 * index, 103 + 3 * index))
            scheduler.add_request(Request(f"r{index}", prompt, SamplingParams(max_tokens=2)))
        num_prompt_tokens = 0
        launched: list[ScheduledBatch] = []
        while scheduler.has_unfinished:
            batch = scheduler.schedule()
            if not batch.is_empty:
                num_prompt_tokens += batch.num_tokens - batch.num_decodes
                launched.append(batch)
            if launched and (batch.is_empty or len(launched) == steps_in_flight):
                scheduler.finish_step(launched[0], [9] * len(launched.pop(0).samples))
        assert num_prompt_tokens == 80 + 12 * 3


def test_running_ahead_schedules_a_token_that_is_still_in_flight() -> None:
    scheduler = make()
    leader = scheduler.add_request(request("a", 4, max_tokens=3))
    first = scheduler.schedule()
    second = scheduler.schedule()
    assert work(second) == [("a", 4, 1)]
    assert len(leader.token_ids) == 4, "the input token of the second step is not known yet"
    assert leader.num_tokens == 6
    scheduler.finish_step(first, [7])
    third = scheduler.schedule()
    assert work(third) == [("a", 5, 1)]
    scheduler.finish_step(second, [8])
    assert scheduler.schedule().is_empty, "the third output token is the last"
    result = scheduler.finish_step(third, [9])
    assert result.finished == [leader]
    assert leader.output_token_ids == [7, 8, 9]


def test_a_sequence_may_ask_not_to_run_ahead() -> None:
    scheduler = make()
    scheduler.add_request(request("a", 4, run_ahead=False))
    first = scheduler.schedule()
    assert scheduler.schedule().is_empty
    scheduler.finish_step(first, [7])
    assert work(scheduler.schedule()) == [("a", 4, 1)]


def test_what_ends_in_flight_is_freed_after_the_step_that_ran_ahead() -> None:
    scheduler = make()
    leader = scheduler.add_request(request("a", 4, eos_token_ids=frozenset({0})))
    first, second = scheduler.schedule(), scheduler.schedule()
    assert scheduler.finish_step(first, [0]).finished == [leader]
    assert leader.finish_reason is FinishReason.STOP
    assert leader.stop_token_id == 0
    pool = scheduler.blocks.pool
    assert (pool.num_free, pool.num_fenced) == (30, 2)
    result = scheduler.finish_step(second, [5])
    assert (result.accepted, result.dropped) == ([], [0])
    assert leader.output_token_ids == [0]
    assert pool.num_free == 32


def test_siblings_share_the_prompt_and_copy_its_last_block_on_write() -> None:
    scheduler = make()
    leader = scheduler.add_request(request("a", 6, n=3, max_tokens=4))
    first = scheduler.schedule()
    assert work(first) == [("a", 0, 6)]
    assert [s.index for s in first.samples] == [0, 1, 2]
    assert first.sample_indices == [0, 0, 0]
    assert first.new_rows == first.samples
    assert [s.row for s in first.samples] == [0, 1, 2]
    assert [s.block_table for s in first.samples] == [[1, 2]] * 3
    scheduler.finish_step(first, [10, 20, 30])
    second = run_step(scheduler)
    assert second.num_decodes == 3
    assert second.copies == [(2, 3), (2, 4)]
    assert second.table_updates == [(0, 1, 3), (1, 1, 4)]
    assert [s.block_table for s in second.samples] == [[1, 3], [1, 4], [1, 2]]
    assert leader.output_token_ids == [10, 9]
    assert scheduler.blocks.pool.num_free == 28


def test_seats_are_kept_for_siblings_until_they_are_forked() -> None:
    scheduler = make(max_num_batched_tokens=8)
    scheduler.add_request(request("a", 12, n=3))
    scheduler.add_request(request("b", 2))
    scheduler.add_request(request("c", 2))
    run_step(scheduler)
    assert work(run_step(scheduler)) == [("a", 8, 4), ("b", 0, 2)]
    assert scheduler.stats().num_running == 4
    assert scheduler.stats().num_waiting == 1


def test_tokens_of_sequences_that_ended_are_named_by_their_place() -> None:
    scheduler = make()
    for name in "abc":
        scheduler.add_request(request(name, 4))
    batch = scheduler.schedule()
    scheduler.abort("b")
    result = scheduler.finish_step(batch, [7, 8, 9])
    assert [s.request.request_id for s in result.accepted] == ["a", "c"]
    assert [s.token_ids[-1] for s in result.accepted] == [7, 9]
    assert result.dropped == [1]


def test_beams_are_forked_pruned_and_ended() -> None:
    scheduler = make()
    beams = BeamSearchParams(beam_width=2, max_tokens=3)
    root = scheduler.add_request(Request("a", (1, 2, 3, 4, 5), beam_search=beams))
    batch = scheduler.schedule()
    result = scheduler.finish_step(batch, [0])
    assert (result.accepted, result.parked) == ([], [root])
    assert scheduler.schedule().is_empty, "it waits for the search"
    one, other = scheduler.advance_beams("a", [(root, 11), (root, 12)])
    assert one is root
    assert [b.output_token_ids for b in (one, other)] == [[11], [12]]
    batch = run_step(scheduler)
    assert batch.copies == [(2, 3)]
    assert batch.new_rows == [other]
    left, right = scheduler.advance_beams("a", [(other, 21), (other, 22)])
    assert one.finish_reason is FinishReason.PRUNED
    assert [b.output_token_ids for b in (left, right)] == [[12, 21], [12, 22]]
    run_step(scheduler)
    ended = scheduler.advance_beams("a", [(right, 31), (left, 32)])
    assert [b.finish_reason for b in ended] == [FinishReason.LENGTH] * 2
    assert not scheduler.has_unfinished
    scheduler.check_integrity()
    assert scheduler.blocks.pool.num_free == 32
