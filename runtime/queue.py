"""A queue of sequences, the first by (priority, arrival, index) in front; removal is cheap."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from runtime.sequence import Sequence


class SequenceQueue:
    """A heap whose removed entries are skipped later, so that an abort costs no search."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, int, int], int, Sequence]] = []
        self._members: dict[int, Sequence] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, sequence: object) -> bool:
        return id(sequence) in self._members

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._members.values())

    def push(self, sequence: Sequence) -> None:
        """Add a sequence at the place that its key gives it."""
        assert sequence not in self, f"{sequence} is queued twice"
        heapq.heappush(self._heap, (sequence.key, id(sequence), sequence))
        self._members[id(sequence)] = sequence

    def peek(self) -> Sequence | None:
        """First sequence, None if the queue is empty."""
        while self._heap and self._heap[0][1] not in self._members:
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def remove(self, sequence: Sequence) -> None:
        """Take a member out, wherever it stands."""
        del self._members[id(sequence)]
        if len(self._heap) > 16 + 2 * len(self._members):
            self._heap = [entry for entry in self._heap if entry[1] in self._members]
            heapq.heapify(self._heap)
