"""A device that lags behind: work is done only when the host waits for it, and in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from runtime.stream import HostStream


@dataclass
class LateMark:
    stream: LateStream
    position: int

    def wait(self) -> None:
        self.stream.advance(self.position)


class LateStream(HostStream):
    """Work that was submitted sees the host's memory as it is when it is done, not before."""

    is_asynchronous = True

    def __init__(self) -> None:
        self.queue: deque[Callable[[], None]] = deque()
        self.num_submitted = 0
        self.num_done = 0
        self.most_queued = 0

    def submit(self, work: Callable[[], None]) -> None:
        self.queue.append(work)
        self.num_submitted += 1
        self.most_queued = max(self.most_queued, len(self.queue))

    def mark(self) -> LateMark:
        return LateMark(self, self.num_submitted)

    def advance(self, position: int) -> None:
        while self.num_done < position:
            self.queue.popleft()()
            self.num_done += 1
