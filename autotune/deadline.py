"""A budget of seconds and its fair division."""

from __future__ import annotations

import time


class Deadline:
    """A budget counted from construction; None never ends."""

    def __init__(self, budget_s: float | None) -> None:
        self._end = None if budget_s is None else time.monotonic() + budget_s

    @property
    def left_s(self) -> float | None:
        """Seconds left, None without a budget."""
        return None if self._end is None else self._end - time.monotonic()

    def share(self, parts: int) -> Deadline:
        """An equal part of what is left."""
        left = self.left_s
        return Deadline(None if left is None else max(0.0, left) / max(1, parts))

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return self._end is not None and time.monotonic() >= self._end
