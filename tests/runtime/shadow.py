"""The shadow engine: drives the real scheduler against a shadow device and checks every step.

After each step: free + held + fenced blocks = the pool; each reference count = the number of
tables that name the block; no block is written by two; nothing that a step in flight touches is
free; every running or swapped sequence reads back exactly its own tokens; every hash in the prefix
cache names the content under it. At the end: every request has ended, with the tokens that it
would have had alone.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import shadow_model
from shadow_checks import check_batch, check_pool, check_prefix_cache
from shadow_device import ShadowDevice

from runtime.batch import ScheduledBatch
from runtime.errors import RequestRefusedError
from runtime.scheduler import Scheduler
from runtime.scheduler_config import SchedulerConfig
from runtime.sequence import FinishReason, Request, Sequence, SequenceStatus


@dataclass
class Ticket:
    """What the engine remembers of a request, until it can judge it."""

    request: Request
    max_total_tokens: int
    ended: list[Sequence] = field(default_factory=list)
    hypotheses: list[tuple[int, ...]] = field(default_factory=list)
    scores: dict[Sequence, int] = field(default_factory=dict)
    candidates: dict[Sequence, list[tuple[int, int]]] = field(default_factory=dict)


class ShadowEngine:
    """Submit, abort, launch and collect in any order; `drain` at the end."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.scheduler = Scheduler(config)
        self.device = ShadowDevice(config.block_size)
        self.launched: deque[tuple[ScheduledBatch, list[int]]] = deque()
        self.tickets: dict[str, Ticket] = {}
        self.num_steps = 0
        self.counts: Counter[str] = Counter()
        self._touched: dict[int, set[int]] = {}  # step id -> device blocks
        self._touched_on_host: dict[int, set[int]] = {}
        self._content: dict[bytes, int] = {}  # block hash -> history at its end

    # ---- what a client does ---------------------------------------------------------------------

    def submit(self, request: Request) -> bool:
        """Hand a request in; says whether it was taken."""
        try:
            leader = self.scheduler.add_request(request)
        except RequestRefusedError:
            self.counts["refused"] += 1
            return False
        self.tickets[request.request_id] = Ticket(request, leader.max_total_tokens)
        self.tickets[request.request_id].scores[leader] = 0
        self.device.learn(leader, list(request.prompt_token_ids))
        self.counts["taken"] += 1
        return True

    def abort(self, request_id: str) -> None:
        """Abort a request that may be anywhere."""
        for sequence in self.scheduler.abort(request_id):
            assert sequence.finish_reason is FinishReason.ABORT
            self._note_end(sequence)
        assert not self.scheduler.abort(request_id), "a request was aborted twice"
        self.counts["aborted"] += 1
        self._judge_if_ended(request_id)

    def stop(self, sequence: Sequence) -> None:
        """End one sequence as if a stop string had been found in its text."""
        self.scheduler.finish_sequence(sequence, FinishReason.STOP)
        self.counts["stopped"] += 1
        self._note_end(sequence)
        self._judge_if_ended(sequence.request.request_id)

    # ---- what the engine loop does --------------------------------------------------------------

    def launch(self) -> bool:
        """Schedule a step and start it; says whether there was anything to do."""
        batch = self.scheduler.schedule()
        if batch.is_empty:
            return False
        check_batch(batch, self.config)
        assert len(self.scheduler.roster.running) <= self.config.max_num_seqs, (
            "too many are running"
        )
        tokens = []
        histories = self.device.execute(batch)
        indices = batch.output_indices()
        for sequence, history, output_index in zip(batch.samples, histories, indices, strict=True):
            tokens.append(self._sample(sequence, history, output_index))
        self.launched.append((batch, tokens))
        self._note_touched(batch)
        self.num_steps += 1
        self.counts["tokens"] += batch.num_tokens
        self.counts["swaps"] += len(batch.swap_ins)
        self.counts["copies"] += len(batch.copies)
        self.check()
        return True

    def collect(self) -> None:
        """Take the results of the oldest step in flight."""
        batch, tokens = self.launched.popleft()
        del self._touched[batch.step_id], self._touched_on_host[batch.step_id]
        result = self.scheduler.finish_step(batch, tokens)
        for sequence in result.accepted:
            known = sequence.token_ids
            assert known == self.device.truth[sequence][: len(known)], "a wrong token was taken"
        for sequence in result.finished:
            self._note_end(sequence)
        for sequence in result.finished:
            self._judge_if_ended(sequence.request.request_id)
        for request_id in {sequence.request.request_id for sequence in result.parked}:
            self._search(self.tickets[request_id])
        self.check()

    @property
    def can_launch(self) -> bool:
        """Whether another step may be put in flight."""
        return len(self.launched) < self.config.max_steps_in_flight

    def step(self) -> None:
        """Move on by one launch or one collection; raises if nothing can ever move again."""
        if self.can_launch and self.launch():
            if self.config.max_steps_in_flight == 1:
                self.collect()
        elif self.launched:
            self.collect()
        else:
            assert not self.scheduler.has_unfinished, "livelock: live requests, but nothing to do"

    def drain(self, max_steps: int = 20_000) -> None:
        """Run until every request has ended, and nothing is held any more."""
        for _ in range(max_steps):
            if not self.scheduler.has_unfinished and not self.launched:
                break
            self.step()
        assert not self.scheduler.has_unfinished, f"requests live after {max_steps} more steps"
        assert not self.tickets, f"requests without an end: {list(self.tickets)}"
        self.check()
        for pool in (self.scheduler.blocks.pool, self.scheduler.blocks.host_pool):
            assert pool.num_free == pool.num_usable, "blocks are held by nobody"

    # ---- the proof ------------------------------------------------------------------------------

    def check(self) -> None:
        """Assert everything that holds between any two events."""
        live = [s for ticket in self.tickets for s in self.scheduler.sequences_of(ticket)]
        blocks = self.scheduler.blocks
        check_pool(blocks.pool, [s.block_table for s in live], self._touched.values())
        check_pool(blocks.host_pool, [s.host_table for s in live], self._touched_on_host.values())
        for sequence in live:
            self._note_content(sequence)
            if sequence.status is SequenceStatus.RUNNING:
                self.device.check_context(sequence, sequence.num_computed_tokens)
            elif sequence.status is SequenceStatus.SWAPPED:
                self.device.check_host(sequence)
            else:
                assert not sequence.num_computed_tokens, f"{sequence} waits with computed tokens"
        check_prefix_cache(blocks.pool, self.device.slots, self.config.block_size, self._content)
        self.scheduler.check_integrity()

    def _note_content(self, sequence: Sequence) -> None:
        past = self.device.history_of(sequence)
        for index, digest in enumerate(sequence.block_hashes):
            history = past[(index + 1) * self.config.block_size - 1]
            assert self._content.setdefault(digest, history) == history, "hashes collide"

    def _note_touched(self, batch: ScheduledBatch) -> None:
        blocks = {b for table in batch.block_tables() for b in table}
        blocks |= {b for pair in batch.copies for b in pair}
        blocks |= {device for device, _ in batch.swap_outs} | {d for _, d in batch.swap_ins}
        self._touched[batch.step_id] = blocks
        on_host = {h for _, h in batch.swap_outs} | {h for h, _ in batch.swap_ins}
        self._touched_on_host[batch.step_id] = on_host

    def _sample(self, sequence: Sequence, history: int, output_index: int) -> int:
        request = sequence.request
        if sequence not in self.device.truth:  # forked from the same prompt in this step
            self.device.learn(sequence, list(request.prompt_token_ids))
        if sequence.is_beam:
            found = shadow_model.candidates(request, history)
            self.tickets[request.request_id].candidates[sequence] = found
            return found[0][1]
        token_id = shadow_model.sample(request, sequence.index, history, output_index)
        assert sequence.row is not None
        self.device.last_token[sequence.row] = token_id
        self.device.append(sequence, token_id)
        return token_id

    def _search(self, ticket: Ticket) -> None:
        """Choose the next beams once all of them have been sampled."""
        request_id = ticket.request.request_id
        live = self.scheduler.sequences_of(request_id)
        if not live or not all(beam.is_parked for beam in live):
            return
        beams = sorted(live, key=lambda beam: list(ticket.scores).index(beam))
        go_on, ended = shadow_model.choose(
            ticket.request,
            [ticket.scores[beam] for beam in beams],
            [ticket.candidates[beam] for beam in beams],
        )
        for choice in ended:
            output = (*beams[choice.parent].output_token_ids, choice.token_id)
            ticket.hypotheses.append(output)
        past = {beam: list(self.device.truth[beam]) for beam in beams}
        if go_on:
            pairs = [(beams[choice.parent], choice.token_id) for choice in go_on]
            chosen = self.scheduler.advance_beams(request_id, pairs)
        else:
            chosen = []
            self.scheduler.finish_request(request_id, FinishReason.STOP)
        ticket.scores = {beam: c.score for beam, c in zip(chosen, go_on, strict=True)}
        ticket.candidates = {}
        for beam in beams:
            if beam.finish_reason in (FinishReason.PRUNED, FinishReason.STOP):
                self._note_end(beam)
        for beam, choice in zip(chosen, go_on, strict=True):
            self.device.learn(beam, [*past[beams[choice.parent]], choice.token_id])
            if beam.is_finished:
                ticket.hypotheses.append(tuple(beam.output_token_ids))
                self._note_end(beam)
        self._judge_if_ended(request_id)

    def _note_end(self, sequence: Sequence) -> None:
        assert sequence.is_finished
        self.tickets[sequence.request.request_id].ended.append(sequence)
        self._note_content(sequence)
        self.device.forget(sequence)
        self.counts["preemptions"] += sequence.num_preemptions

    def _judge_if_ended(self, request_id: str) -> None:
        """Compare all outputs of a request that has ended with what it says when alone."""
        if request_id not in self.tickets or self.scheduler.sequences_of(request_id):
            return
        ticket = self.tickets.pop(request_id)
        request = ticket.request
        assert len(set(ticket.ended)) == len(ticket.ended), "a sequence ended twice"
        was_cut = any(s.finish_reason is FinishReason.ABORT for s in ticket.ended)
        if request.beam_search is not None:
            if not was_cut:
                expected = shadow_model.undisturbed_beams(request, ticket.max_total_tokens)
                assert sorted(ticket.hypotheses) == expected, f"beams of {request_id} differ"
            return
        for sequence in ticket.ended:
            expected_ids = shadow_model.undisturbed_output(
                request, sequence.index, ticket.max_total_tokens
            )
            output = list(sequence.output_token_ids)
            assert output == expected_ids[: len(output)], f"{sequence} says something else"
            was_stopped = (
                sequence.finish_reason is FinishReason.STOP and sequence.stop_token_id is None
            )
            if not was_stopped and sequence.finish_reason is not FinishReason.ABORT:
                assert len(output) == len(expected_ids), f"{sequence} was cut short"
        if not was_cut:
            assert len(ticket.ended) == request.sampling_params.n, f"{request_id}: siblings missing"
