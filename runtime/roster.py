"""Every live sequence and the moves between its states; the scheduler decides which to make.

    add -> WAITING -> start -> RUNNING -> end -> FINISHED
              ^                   |
              +---- preempt ------+---> SWAPPED -> start -> RUNNING

`end` is reached from any state, once. Blocks that a step in flight may touch stay fenced by the
newest such step; rows need no fence, because steps run in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from runtime.admission import bound_total_tokens
from runtime.batch import ScheduledBatch
from runtime.block_manager import BlockManager
from runtime.errors import DuplicateRequestError, QueueFullError
from runtime.preemption import PreemptionMode
from runtime.queue import SequenceQueue
from runtime.running import RunningSet
from runtime.scheduler_config import SchedulerConfig, SchedulingPolicy
from runtime.sequence import FinishReason, Request, Sequence, SequenceStatus


class Roster:
    """Queues, seats and blocks of the live sequences, and the steps in flight."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.blocks = BlockManager(
            config.block_size,
            config.num_blocks,
            config.num_host_blocks,
            enable_prefix_caching=config.enable_prefix_caching,
        )
        self.waiting = SequenceQueue()
        self.swapped = SequenceQueue()
        self.running = RunningSet(config.max_num_seqs)
        self.in_flight: deque[ScheduledBatch] = deque()
        self.last_ended_step_id = 0
        self.unlisted_rows: list[Sequence] = []
        """Forked since the last batch; the next one lists them as new rows."""
        self.num_preemptions = dict.fromkeys(PreemptionMode, 0)
        self._live: dict[str, list[Sequence]] = {}
        self._num_made: dict[str, int] = {}  # sequences ever made, per live request
        self._num_arrivals = 0
        self._unstarted: set[str] = set()

    @property
    def fence(self) -> int | None:
        """Newest step in flight, which may touch any block that is held now."""
        return self.in_flight[-1].step_id if self.in_flight else None

    @property
    def has_live(self) -> bool:
        """Whether any sequence has not ended."""
        return bool(self._live)

    def sequences_of(self, request_id: str) -> list[Sequence]:
        """Live sequences of a request, none if it has ended or never was."""
        return list(self._live.get(request_id, ()))

    def is_unstarted(self, request_id: str) -> bool:
        """Whether a live request has had no turn yet."""
        return request_id in self._unstarted

    def add(self, request: Request) -> Sequence:
        """Take a request, or raise a RequestRefusedError and keep nothing of it."""
        if request.request_id in self._live:
            raise DuplicateRequestError(request.request_id)
        max_total_tokens = bound_total_tokens(request, self.config)
        if len(self._unstarted) >= self.config.max_queue_len:
            raise QueueFullError(self.config.max_queue_len)
        self._num_arrivals += 1
        priority = request.priority if self.config.policy is SchedulingPolicy.PRIORITY else 0
        sequence = Sequence(request, (priority, self._num_arrivals, 0), max_total_tokens)
        self._live[request.request_id] = [sequence]
        self._num_made[request.request_id] = 1
        self._unstarted.add(request.request_id)
        self.waiting.push(sequence)
        return sequence

    def head(self) -> Sequence | None:
        """First sequence in order among the waiting and the swapped, None if there is none."""
        waiting, swapped = self.waiting.peek(), self.swapped.peek()
        if waiting is None or swapped is None:
            return waiting or swapped
        return waiting if waiting.key < swapped.key else swapped

    def may_resume(self, sequence: Sequence) -> bool:
        """Whether the steps that a preempted sequence took part in have ended."""
        return sequence.resume_after <= self.last_ended_step_id

    def start(self, sequence: Sequence, batch: ScheduledBatch, headroom: int) -> bool:
        """Give a waiting or swapped sequence its blocks and a seat, or change nothing."""
        pairs = self.blocks.allocate(sequence, batch.step_id, headroom)
        if pairs is None:
            return False
        batch.swap_ins.extend(pairs)
        self._queue_of(sequence).remove(sequence)
        self.running.add(sequence)
        batch.new_rows.append(sequence)
        if sequence.request.request_id in self._unstarted:
            self._unstarted.remove(sequence.request.request_id)
            sequence.num_cached_tokens = sequence.num_computed_tokens
        return True

    def preempt(self, sequence: Sequence, batch: ScheduledBatch) -> None:
        """Take the seat and the blocks of a running sequence that is not in `batch`."""
        self.running.remove(sequence)
        sequence.num_preemptions += 1
        mode = self._preemption_mode(sequence)
        if mode is PreemptionMode.SWAP:
            pairs = self.blocks.swap_out(sequence, batch.step_id)
            if pairs is None:
                mode = PreemptionMode.RECOMPUTE
            else:
                batch.swap_outs.extend(pairs)
                sequence.status = SequenceStatus.SWAPPED
                sequence.resume_after = batch.step_id
        if mode is PreemptionMode.RECOMPUTE:
            self.blocks.free(sequence, self.fence)
            sequence.num_computed_tokens = 0
            sequence.status = SequenceStatus.WAITING
            sequence.resume_after = self.fence or 0
        self.num_preemptions[mode] += 1
        if not sequence.is_parked:
            self._queue_of(sequence).push(sequence)

    def park(self, sequence: Sequence) -> None:
        """Hold a beam, whose candidates are known now, until the search has chosen."""
        if sequence.status is not SequenceStatus.RUNNING:
            self._queue_of(sequence).remove(sequence)
        sequence.is_parked = True

    def release_kept_seats(self, sequence: Sequence) -> None:
        """The forks that seats were kept for are being made now."""
        if sequence.row is not None:
            self.running.num_kept_seats -= sequence.num_seats - 1
        sequence.num_seats = 1
        sequence.num_forks = 0

    def unpark(self, sequence: Sequence) -> None:
        """Let a beam go on, from wherever it was left."""
        sequence.is_parked = False
        if sequence.status is not SequenceStatus.RUNNING:
            self._queue_of(sequence).push(sequence)

    def fork(self, parent: Sequence) -> Sequence:
        """Make a sequence in the state of `parent` that shares its blocks.

        A running parent's child that finds no open seat starts over from its tokens.
        """
        request_id = parent.request.request_id
        child = parent.fork(self._num_made[request_id])
        self._num_made[request_id] += 1
        self._live[request_id].append(child)
        child.status = parent.status
        if parent.status is SequenceStatus.RUNNING and not self.running.num_open_seats:
            child.status = SequenceStatus.WAITING
        else:
            self.blocks.fork(parent, child)
            child.resume_after = parent.resume_after
        if child.status is SequenceStatus.RUNNING:
            self.running.add(child)
            self.unlisted_rows.append(child)
            parent.next_event = 0  # its last block is shared now
        elif not parent.is_parked:
            self._queue_of(child).push(child)
        child.is_parked = parent.is_parked
        return child

    def end(self, sequence: Sequence, reason: FinishReason) -> None:
        """Finish a sequence, in whatever state it is; the one terminal transition."""
        assert not sequence.is_finished, f"{sequence} ends twice"
        if sequence.status is SequenceStatus.RUNNING:
            self.running.remove(sequence)
        elif not sequence.is_parked:
            self._queue_of(sequence).remove(sequence)
        self.blocks.free(sequence, self.fence)
        sequence.status = SequenceStatus.FINISHED
        sequence.finish_reason = reason
        sequence.is_parked = False
        request_id = sequence.request.request_id
        self._live[request_id].remove(sequence)
        if not self._live[request_id]:
            del self._live[request_id], self._num_made[request_id]
            self._unstarted.discard(request_id)

    def take_new_rows(self) -> Iterable[Sequence]:
        """Sequences that were forked since the last batch and still have their seat."""
        rows = [sequence for sequence in self.unlisted_rows if sequence.row is not None]
        self.unlisted_rows = []
        return rows

    def check_integrity(self) -> None:
        """Assert that every live sequence is in one place, with just the blocks of that state."""
        live = [sequence for sequences in self._live.values() for sequence in sequences]
        self.blocks.check_integrity(live)
        running = [s for s in self.running.sequences if s.row is not None]
        assert len({s.row for s in running}) == len(running) == len(self.running), "seats differ"
        assert [s.key for s in running] == sorted(s.key for s in running), "running is unordered"
        for s in live:
            places = [s in self.waiting, s in self.swapped, s.row is not None]
            expected = [
                s.status is SequenceStatus.WAITING and not s.is_parked,
                s.status is SequenceStatus.SWAPPED and not s.is_parked,
                s.status is SequenceStatus.RUNNING,
            ]
            assert places == expected, f"{s} is in {places}, should be in {expected}"
            assert bool(s.host_table) == (s.status is SequenceStatus.SWAPPED), f"host blocks of {s}"
            assert s.is_parked or s.num_computed_tokens < s.num_tokens, (
                f"{s} has no token left to compute"
            )
            capacity = max(len(s.block_table), len(s.host_table)) * self.config.block_size
            assert s.num_computed_tokens <= capacity, f"{s} has more tokens than blocks"
        num_placed = len(self.waiting) + len(self.swapped) + len(self.running)
        num_parked = sum(1 for s in live if s.is_parked and s.row is None)
        assert num_placed + num_parked == len(live), "a finished sequence is still in a queue"
        kept = sum(s.num_seats - 1 for s in running)
        assert self.running.num_kept_seats == kept, "seats are kept for nobody"

    def _queue_of(self, sequence: Sequence) -> SequenceQueue:
        if sequence.status is SequenceStatus.WAITING:
            return self.waiting
        assert sequence.status is SequenceStatus.SWAPPED, f"{sequence} is in no queue"
        return self.swapped

    def _preemption_mode(self, sequence: Sequence) -> PreemptionMode:
        if self.config.preemption_mode is not None:
            return self.config.preemption_mode
        if self.config.preemption_cost is None:
            return PreemptionMode.RECOMPUTE
        num_tokens = sequence.num_computed_tokens
        return self.config.preemption_cost.choose(
            num_tokens, self.blocks.num_blocks_for(num_tokens)
        )
