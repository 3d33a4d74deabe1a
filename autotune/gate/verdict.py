"""What a gate says about one kernel, and whether that fails the gate."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """Outcome of comparing one kernel before and after."""

    SAME = "same"
    FASTER = "faster"
    SLOWER = "slower"
    AMBIGUOUS = "ambiguous"
    """Too noisy to tell, after one more try."""
    INCOMPARABLE = "incomparable"
    """The machine itself changed speed, or the sides were taken on different ones."""
    MISSING = "missing"
    """In the baseline, not in the candidate."""
    NEW = "new"
    """In the candidate, not in the baseline."""
    IMPROVED = "improved"
    """A fact moved, for the better only: the pin is stale."""
    WORSE = "worse"
    """A fact moved for the worse."""
    MOVED = "moved"
    """Facts moved that are neither better nor worse in themselves."""
    UNSOUND = "unsound"
    """New spills, lost matrix instructions, lower occupancy, too much memory, does not compile."""
    REPINNED = "repinned"
    """Facts differ from the baseline's, and the candidate's own pins say so."""
    RESELECTED = "reselected"
    """Another configuration was chosen for the same point."""
    TOOLCHAIN = "toolchain"
    """The pins were made by another compiler, and nothing of the baseline can be compiled here."""

    @property
    def fails(self) -> bool:
        """Whether one of these fails the gate."""
        return self in _FAILING


_FAILING = frozenset(
    {
        Verdict.SLOWER,
        Verdict.MISSING,
        Verdict.IMPROVED,
        Verdict.WORSE,
        Verdict.MOVED,
        Verdict.UNSOUND,
        Verdict.TOOLCHAIN,
    }
)
