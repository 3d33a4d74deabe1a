"""Plans one step: which sequences get tokens, which get blocks, and which give way.

First every sequence that needs one token, in order; then the chunks of those in prefill; then, if
nobody was short of a block, the first of the waiting and swapped, those left out whose prompts
begin with blocks that a running sequence is computing. What is left of the token budget
passes from each to the next.
"""

from __future__ import annotations

from runtime.admission import OutputForecast
from runtime.batch import ScheduledBatch
from runtime.roster import Roster
from runtime.scheduler_config import SchedulerConfig, SchedulingPolicy
from runtime.sequence import Sequence

_FORECAST_EVERY = 8
"""Plans between two forecasts for the same waiting sequence."""


class StepPlanner:
    """Fills a batch from the roster; the only code that hands out tokens."""

    def __init__(self, config: SchedulerConfig, roster: Roster) -> None:
        self.config = config
        self.roster = roster
        self.blocks = roster.blocks
        self.running = roster.running
        self.forecast = OutputForecast(config.expected_output_tokens)
        self._num_plans = 0
        self._tail = 0  # running sequences from this index on have been preempted in this step
        self._is_short = False  # in this step a running sequence got no block, or took another's
        self._favoured: Sequence | None = None  # others were preempted for it
        self._held_back: tuple[Sequence, int] | None = None  # by the forecast, until that plan

    def plan(self, batch: ScheduledBatch) -> None:
        """Fill `batch`; it stays empty if nothing can move before something else happens."""
        self._num_plans += 1
        self._is_short = False
        self.running.compact()
        if self.config.policy is SchedulingPolicy.PRIORITY:
            self._preempt_for_head(batch)
        chunks = self._schedule_decodes(batch)
        budget = self.config.max_num_batched_tokens - len(batch.sequences)
        for sequence in chunks:
            if budget == 0:
                break
            budget -= self._add_chunk(batch, sequence, budget)
        if not self._is_short:
            self._admit(batch, budget)

    def _schedule_decodes(self, batch: ScheduledBatch) -> list[Sequence]:
        """Give one token to each running sequence that needs just one.

        Returns those with more to compute. Nearly all sequences take the first branch in nearly
        every step, so it does the least that can be done.
        """
        chunks: list[Sequence] = []
        skipped: list[Sequence] = []
        add_start = batch.starts.append
        add_slot = batch.slot_mapping.append
        sequences = self.running.sequences
        self._tail = len(sequences)
        for sequence in sequences:
            position = sequence.num_computed_tokens
            if position >= sequence.next_event and not self._prepare(sequence, batch, chunks):
                skipped.append(sequence)
                continue
            sequence.num_computed_tokens = position + 1
            add_start(position)
            add_slot(position + sequence.slot_offset)
        left_out = set(skipped)
        batch.sequences = [s for s in sequences if s not in left_out] if skipped else sequences[:]
        batch.num_decodes = len(batch.sequences)
        batch.counts = [1] * batch.num_decodes
        batch.samples = batch.sequences[:]
        batch.sample_indices = list(range(batch.num_decodes))
        return chunks

    def _prepare(self, sequence: Sequence, batch: ScheduledBatch, chunks: list[Sequence]) -> bool:
        """Make a running sequence ready to compute one token; says whether it is."""
        if sequence.row is None or sequence.is_parked:
            return False
        position = sequence.num_computed_tokens
        num_known = len(sequence.token_ids)
        if num_known - position > 1 or sequence.num_forks:
            chunks.append(sequence)
            return False
        if position + 1 >= sequence.max_total_tokens:
            return False  # its last token is in flight
        if position >= num_known and not sequence.runs_ahead:
            return False  # the token to compute is in flight
        return self._grow(sequence, position, batch)

    def _grow(self, sequence: Sequence, position: int, batch: ScheduledBatch) -> bool:
        """Make `position` writable, at the expense of later sequences if need be."""
        block_size = self.config.block_size
        table = sequence.block_table
        if self.blocks.needs_block(sequence, position):
            if not self.blocks.pool.num_free and not self._make_room(sequence, batch):
                return False
            copy = self.blocks.append(sequence, position, batch.step_id)
            if copy is not None:
                batch.copies.append(copy)
            assert sequence.row is not None, f"{sequence} has no seat"
            index = position // block_size
            batch.table_updates.append((sequence.row, index, table[index]))
        last = len(table) - 1
        sequence.slot_offset = (table[last] - last) * block_size
        if sequence.runs_ahead:
            capacity = (last + 1) * block_size
            sequence.next_event = min(capacity, sequence.max_total_tokens - 1)
        return True

    def _make_room(self, sequence: Sequence, batch: ScheduledBatch) -> bool:
        """Preempt others until `sequence` can write its next position; says whether it can."""
        position = sequence.num_computed_tokens
        self._is_short = True
        while self.blocks.needs_block(sequence, position) and self.blocks.num_missing(1):
            victim = self._next_victim(sequence)
            if victim is None:
                break
            self.roster.preempt(victim, batch)
        # What was taken may be fenced yet: then this sequence waits, and keeps what it has.
        return self.blocks.pool.num_free > 0 or not self.blocks.needs_block(sequence, position)

    def _next_victim(self, sequence: Sequence) -> Sequence | None:
        """Running sequence that gives way to `sequence`: the last after it, or a parked beam."""
        sequences = self.running.sequences
        while self._tail and sequences[self._tail - 1].key > sequence.key:
            self._tail -= 1
            if sequences[self._tail].row is not None:
                return sequences[self._tail]
        return self._parked_victim()

    def _parked_victim(self) -> Sequence | None:
        # A beam that waits for its siblings must not keep the blocks that they need.
        return next((s for s in self.running.sequences if s.is_parked and s.row is not None), None)

    def _add_chunk(self, batch: ScheduledBatch, sequence: Sequence, budget: int) -> int:
        """Hand out as many of a sequence's tokens as the budget allows; returns their number."""
        num_left = len(sequence.token_ids) - sequence.num_computed_tokens
        count = min(budget, num_left)
        if self.config.long_prefill_token_threshold is not None:
            count = min(count, self.config.long_prefill_token_threshold)
        batch.add_chunk(sequence, count, self.config.block_size)
        sequence.num_computed_tokens += count
        if count == num_left:
            batch.add_samples((sequence, *self._fork_samples(sequence)))
        return count

    def _fork_samples(self, sequence: Sequence) -> list[Sequence]:
        """Fork the siblings that are sampled from the same prompt."""
        num_forks = sequence.num_forks
        if num_forks:
            self.roster.release_kept_seats(sequence)
        return [self.roster.fork(sequence) for _ in range(num_forks)]

    def _admit(self, batch: ScheduledBatch, budget: int) -> None:
        """Start waiting and swapped sequences, in order, while the first one fits.

        Those whose next blocks are being computed for another let others pass until they are there.
        """
        deferred: list[Sequence] = []
        self._admit_in_order(batch, budget, deferred)
        for sequence in deferred:
            self.roster.waiting.push(sequence)

    def _admit_in_order(self, batch: ScheduledBatch, budget: int, deferred: list[Sequence]) -> None:
        while budget > 0:
            head = self.roster.head()
            if head is None or not self.roster.may_resume(head):
                return
            if self._awaits_prefix(head):
                if len(deferred) == self.running.num_open_seats:
                    return
                self.roster.waiting.remove(head)
                deferred.append(head)
                continue
            num_left = len(head.token_ids) - head.num_computed_tokens
            if not self.config.enable_chunked_prefill and num_left > budget:
                return
            if self._try_start(head, batch):
                budget -= self._add_chunk(batch, head, budget)
            elif not self._evict_parked(batch):
                return

    def _awaits_prefix(self, head: Sequence) -> bool:
        """Whether to leave `head` waiting, as it will find more of its prompt in the cache soon.

        What it waits for is computed by a running sequence: at the end of that prefill, or of that
        sequence, the wait is over. Nobody waits who had others preempted for it.
        """
        return head is not self._favoured and self.blocks.is_promised(head)

    def _try_start(self, head: Sequence, batch: ScheduledBatch) -> bool:
        if head.num_seats > self.running.num_open_seats or self.blocks.is_still_refused(head):
            return False
        headroom = 0
        if self._has_choice(head, batch):
            if self._is_held_back(head):
                return False
            candidates = [s for s in self.running.sequences if s.row is not None]
            candidates.append(head)
            headroom = self.forecast.peak_growth(candidates, self.config.block_size)
        if self.roster.start(head, batch, headroom):
            self._held_back = self._favoured = None
            return True
        self._held_back = (head, self._num_plans + _FORECAST_EVERY)
        return False

    def _has_choice(self, head: Sequence, batch: ScheduledBatch) -> bool:
        """Whether `head` may be left waiting, as something else moves and nobody gave way to it."""
        if not self.config.enable_forecast or head is self._favoured:
            return False
        return bool(self.roster.in_flight) or not batch.is_empty

    def _is_held_back(self, head: Sequence) -> bool:
        if self._held_back is None:
            return False
        sequence, until = self._held_back
        return sequence is head and self._num_plans < until

    def _evict_parked(self, batch: ScheduledBatch) -> bool:
        """Where nothing else can move, take the blocks of a parked beam; says whether it did."""
        if not batch.is_empty or self.roster.in_flight:
            return False
        victim = self._parked_victim()
        if victim is None:
            return False
        self.roster.preempt(victim, batch)
        return True

    def _preempt_for_head(self, batch: ScheduledBatch) -> None:
        """Let a waiting sequence of better priority take the place of the last running one."""
        head = self.roster.head()
        if head is None or not self.roster.may_resume(head) or self._awaits_prefix(head):
            return
        for victim in reversed(self.running.sequences):
            if head.key[0] >= victim.key[0]:
                break
            has_seat = head.num_seats <= self.running.num_open_seats
            if has_seat and not self.blocks.num_missing(self.blocks.num_blocks_needed(head)):
                break
            self.roster.preempt(victim, batch)
            self._favoured = head
        self.running.compact()
