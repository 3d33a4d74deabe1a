"""The engine's face of scheduling: take requests, plan a step, take its tokens, end sequences.

One rule covers prefill, chunks, prefix hits, decode and resumption: a sequence has work while
`num_computed_tokens` is behind `num_tokens`, and a step hands out tokens under a budget. Steps may
be scheduled one ahead of their results; what a step in flight may touch is fenced by its id.

    batch = scheduler.schedule()
    token_ids = runner.run(batch)            # one per entry of batch.samples
    result = scheduler.finish_step(batch, token_ids)

One step ahead, the same calls change places: schedule and launch step k+1, then finish step k. An
empty batch means: finish the step in flight, or wait for a request.

Progress: the first sequence in order can always take the blocks of all others, and a request is
only admitted if one of its sequences fits in the pool alone.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from runtime.batch import ScheduledBatch, StepResult
from runtime.planner import StepPlanner
from runtime.roster import Roster
from runtime.scheduler_config import SchedulerConfig
from runtime.sequence import FinishReason, Request, Sequence


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """Gauges and counters at one moment."""

    num_running: int
    num_waiting: int
    num_swapped: int
    num_free_blocks: int
    num_usable_blocks: int
    num_preemptions: dict[str, int]
    num_prefix_queries: int
    num_prefix_hits: int
    num_evictions: int
    num_scheduled_tokens: int
    """Of prompts and outputs, computed again after a preemption included."""


class Scheduler:
    """Hands out tokens and blocks, step by step, until every request has ended."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.roster = Roster(config)
        self.blocks = self.roster.blocks
        self.planner = StepPlanner(config, self.roster)
        self._last_step_id = 0
        self._num_scheduled_tokens = 0

    # ---- requests -------------------------------------------------------------------------------

    def add_request(self, request: Request) -> Sequence:
        """Queue a request; returns the first of its sequences, from which the others are forked.

        Raises:
            PromptTooLongError, NeverFitsError: it could not be served by this engine at all.
            QueueFullError: it can be, but not now.
            DuplicateRequestError: its id is in use.
        """
        return self.roster.add(request)

    def abort(self, request_id: str) -> list[Sequence]:
        """End every live sequence of a request, in whatever state; returns them.

        An unknown request, or one that has ended, gives an empty list.
        """
        return self.finish_request(request_id, FinishReason.ABORT)

    def finish_request(self, request_id: str, reason: FinishReason) -> list[Sequence]:
        """End every live sequence of a request for `reason`; returns them."""
        ended = self.roster.sequences_of(request_id)
        for sequence in ended:
            self.roster.end(sequence, reason)
        return ended

    def finish_sequence(self, sequence: Sequence, reason: FinishReason) -> None:
        """End one live sequence, as where a stop string was found in its text.

        Tokens of it that are still in flight are dropped when they arrive.
        """
        if reason is not FinishReason.ABORT:
            self.planner.forecast.observe(sequence)
        self.roster.end(sequence, reason)

    def sequences_of(self, request_id: str) -> list[Sequence]:
        """Live sequences of a request."""
        return self.roster.sequences_of(request_id)

    def has_started(self, request_id: str) -> bool:
        """Whether a request has had its first turn; also true of one that has ended."""
        return not self.roster.is_unstarted(request_id)

    @property
    def has_unfinished(self) -> bool:
        """Whether any sequence is live."""
        return self.roster.has_live

    @property
    def has_in_flight(self) -> bool:
        """Whether a step was scheduled and has not been finished."""
        return bool(self.roster.in_flight)

    def stats(self) -> SchedulerStats:
        """Return the gauges and counters that metrics are made of."""
        return SchedulerStats(
            num_running=len(self.roster.running),
            num_waiting=len(self.roster.waiting),
            num_swapped=len(self.roster.swapped),
            num_free_blocks=self.blocks.pool.num_free,
            num_usable_blocks=self.blocks.pool.num_usable,
            num_preemptions={m.value: n for m, n in self.roster.num_preemptions.items()},
            num_prefix_queries=self.blocks.num_prefix_queries,
            num_prefix_hits=self.blocks.num_prefix_hits,
            num_evictions=self.blocks.pool.num_evictions,
            num_scheduled_tokens=self._num_scheduled_tokens,
        )

    def check_integrity(self) -> None:
        """Assert that blocks, seats and queues agree; for tests, and for an idle engine."""
        self.roster.check_integrity()

    # ---- one step -------------------------------------------------------------------------------

    def schedule(self) -> ScheduledBatch:
        """Plan the next step. An empty batch is not to be run or finished.

        Empty means that there is nothing to do before a step in flight ends, beams are advanced,
        or a request arrives.
        """
        in_flight = self.roster.in_flight
        assert len(in_flight) < self.config.max_steps_in_flight, "finish a step first"
        batch = ScheduledBatch(self._last_step_id + 1)
        self.planner.plan(batch)
        if not batch.is_empty:
            batch.new_rows.extend(self.roster.take_new_rows())
            self._last_step_id = batch.step_id
            self._num_scheduled_tokens += batch.num_tokens
            in_flight.append(batch)
        return batch

    def finish_step(self, batch: ScheduledBatch, token_ids: Tokens[int]) -> StepResult:
        """Take the tokens that a step has sampled, one per entry of `batch.samples`, in order.

        Tokens of sequences that ended in the meantime are dropped. For beams the token is ignored:
        the search has the candidates, and says how to go on by `advance_beams`.
        """
        in_flight = self.roster.in_flight
        assert in_flight, "no step is in flight"
        assert in_flight[0] is batch, "steps are finished in their order, each once"
        assert len(token_ids) == len(batch.samples), "one token is due for each sample"
        in_flight.popleft()
        self.roster.last_ended_step_id = batch.step_id
        self._register_filled_blocks(batch)
        result = StepResult(accepted=[], finished=[], parked=[], dropped=[])
        accept = result.accepted.append
        for sequence, token_id in zip(batch.samples, token_ids, strict=True):
            if sequence.is_beam or sequence.finish_reason is not None:
                if sequence.finish_reason is None:
                    self.roster.park(sequence)
                    result.parked.append(sequence)
                else:
                    num_before = len(result.accepted) + len(result.parked) + len(result.dropped)
                    result.dropped.append(num_before)
                continue
            known = sequence.token_ids
            known.append(token_id)
            accept(sequence)
            if token_id in sequence.stop_ids or len(known) == sequence.max_total_tokens:
                self._finish_if_due(sequence, token_id, result)
        self.blocks.end_step(batch.step_id)
        return result

    def _register_filled_blocks(self, batch: ScheduledBatch) -> None:
        # A sequence that runs now has run since the step: `may_resume` sees to that.
        size = self.config.block_size
        decodes = batch.starts[: batch.num_decodes]
        filled = [index for index, start in enumerate(decodes) if start % size == size - 1]
        filled.extend(range(batch.num_decodes, len(batch.sequences)))
        for index in filled:
            sequence = batch.sequences[index]
            if sequence.row is not None:
                self.blocks.register(sequence, batch.starts[index] + batch.counts[index])

    def _finish_if_due(self, sequence: Sequence, token_id: int, result: StepResult) -> None:
        min_tokens = sequence.request.sampling_params.min_tokens
        reason = FinishReason.LENGTH
        if token_id in sequence.stop_ids and sequence.num_output_tokens >= min_tokens:
            reason = FinishReason.STOP
            sequence.stop_token_id = token_id
        elif len(sequence.token_ids) < sequence.max_total_tokens:
            return
        self.planner.forecast.observe(sequence)
        self.roster.end(sequence, reason)
        result.finished.append(sequence)

    def advance_beams(
        self, request_id: str, choices: Tokens[tuple[Sequence, int]]
    ) -> list[Sequence]:
        """Go on with the chosen continuations of a beam search, and prune the other beams.

        Args:
            request_id: a request whose live sequences are all parked.
            choices: (beam, next token) pairs; a beam may occur several times, and is forked.

        Returns:
            The beams, in the order of `choices`; one that reached its length has ended with it.
        """
        live = self.roster.sequences_of(request_id)
        assert live, f"request {request_id!r} is not live"
        assert all(beam.is_parked for beam in live), "a beam has not been sampled"
        parents = {parent for parent, _ in choices}
        assert parents <= set(live), "a choice names a beam that is not live"
        for beam in live:
            if beam not in parents:
                self.roster.end(beam, FinishReason.PRUNED)
            else:
                self.roster.release_kept_seats(beam)
        beams: list[Sequence] = []
        for parent, _ in choices:
            beams.append(self.roster.fork(parent) if parent in beams else parent)
        for beam, (_, token_id) in zip(beams, choices, strict=True):
            beam.token_ids.append(token_id)
            if len(beam.token_ids) == beam.max_total_tokens:
                self.roster.end(beam, FinishReason.LENGTH)
            else:
                self.roster.unpark(beam)
        return beams
