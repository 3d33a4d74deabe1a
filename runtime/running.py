"""The running sequences: in order of their keys, each with a seat."""

from __future__ import annotations

import heapq
from bisect import insort
from operator import attrgetter

from runtime.sequence import Sequence, SequenceStatus

_by_key = attrgetter("key")


class RunningSet:
    """At most `max_num_seqs` sequences with a row each; some seats are kept for later forks.

    `sequences` may still list sequences that have left, until the next `compact`: departures are
    swept together once a step, so that none costs a search.
    """

    def __init__(self, max_num_seqs: int) -> None:
        self.max_num_seqs = max_num_seqs
        self.sequences: list[Sequence] = []
        self.num_kept_seats = 0
        self._free_rows = list(range(max_num_seqs))  # a heap: low rows are used first
        self._has_departures = False

    def __len__(self) -> int:
        return self.max_num_seqs - len(self._free_rows)

    @property
    def num_open_seats(self) -> int:
        """Seats that are neither taken nor kept."""
        return len(self._free_rows) - self.num_kept_seats

    def add(self, sequence: Sequence) -> None:
        """Seat a sequence, and keep seats for the sequences that it will fork."""
        assert sequence.row is None, f"{sequence} has a seat"
        self.compact()
        sequence.row = heapq.heappop(self._free_rows)
        sequence.status = SequenceStatus.RUNNING
        sequence.next_event = 0
        self.num_kept_seats += sequence.num_seats - 1
        insort(self.sequences, sequence, key=_by_key)

    def remove(self, sequence: Sequence) -> None:
        """Give the seat back; the caller sets the new status."""
        assert sequence.row is not None, f"{sequence} has no seat"
        heapq.heappush(self._free_rows, sequence.row)
        sequence.row = None
        sequence.next_event = 0
        self.num_kept_seats -= sequence.num_seats - 1
        self._has_departures = True

    def compact(self) -> None:
        """Sweep out the sequences that have left."""
        if self._has_departures:
            self.sequences = [s for s in self.sequences if s.row is not None]
            self._has_departures = False
