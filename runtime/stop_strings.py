"""Finds stop strings in growing text, across and inside of tokens."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Watches one sequence's text for the first stop string that appears in it."""

    def __init__(self, stops: Sequence[str], *, include_in_output: bool) -> None:
        self._stops = tuple(stops)
        self._include = include_in_output

    def find(self, text: str, start: int) -> tuple[str, int] | None:
        """Look for the earliest stop string that ends after `start`.

        Args:
            text: all output so far.
            start: length of the text when it was last looked at.

        Returns:
            The string, and the length that the text is to be cut to; None if there is none.
        """
        found: tuple[int, str] | None = None
        for stop in self._stops:
            place = text.find(stop, max(0, start - len(stop) + 1))
            if place >= 0 and (found is None or place < found[0]):
                found = (place, stop)
        if found is None:
            return None
        place, stop = found
        return stop, place + (len(stop) if self._include else 0)

    def num_held_back(self, text: str) -> int:
        """Characters at the end that may turn out to be the start of a stop string."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest
