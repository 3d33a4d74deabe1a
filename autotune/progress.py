"""What a run says while it works: a bar on a terminal, lines in a pipe, nothing for --json."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

LONG_SILENCE_S = 10.0


class Reporter(Protocol):
    """Receives the events of a run."""

    def start(self, title: str, trials: int) -> None:
        """A run of so many trials, over all cells, begins."""
        ...

    def cell(self, name: str) -> None:
        """The search of a cell begins."""
        ...

    def advance(self, trials: int) -> None:
        """So many more trials are over."""
        ...

    def state(self, best_us: float | None, rejected: dict[str, int]) -> None:
        """Best objective so far in this cell, and its rejected candidates by reason."""
        ...

    def line(self, text: str) -> None:
        """A result worth keeping on the screen."""
        ...

    def stop(self) -> None:
        """The run is over, well or not."""
        ...


class Silent:
    """Says nothing."""

    def start(self, title: str, trials: int) -> None:
        """Nothing."""

    def cell(self, name: str) -> None:
        """Nothing."""

    def advance(self, trials: int) -> None:
        """Nothing."""

    def state(self, best_us: float | None, rejected: dict[str, int]) -> None:
        """Nothing."""

    def line(self, text: str) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


class Lines(Silent):
    """One line per finished cell, for pipes and logs, and how far it is after a long silence."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._name = ""
        self._done = self._trials = 0
        self._spoke_s = clock()

    def start(self, title: str, trials: int) -> None:
        """Print the title."""
        self._trials = trials
        self.line(title)

    def cell(self, name: str) -> None:
        """Remember the cell for the next line on how far it is."""
        self._name = name

    def advance(self, trials: int) -> None:
        """Say how far it is if nothing was said for long."""
        self._done += trials
        if self._clock() - self._spoke_s >= LONG_SILENCE_S:
            self.line(f"{self._done} of {self._trials}, {self._name}")

    def line(self, text: str) -> None:
        """Print the line."""
        self._spoke_s = self._clock()
        print(text, file=self._out, flush=True)


class Bar:
    """A progress bar with best so far, rejects by reason, and time left."""

    def __init__(self, out: TextIO) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16, table_column=Column(min_width=16)),
            MofNCompleteColumn(table_column=Column(min_width=9)),
            TimeRemainingColumn(compact=True, table_column=Column(min_width=6)),
            TextColumn(
                "{task.fields[state]}",
                style="dim",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True),
            ),
            console=Console(file=out, markup=False, highlight=False),
            transient=True,
            refresh_per_second=4,
        )
        self._task: TaskID | None = None

    def start(self, title: str, trials: int) -> None:
        """Show the bar."""
        self._progress.console.print(title)
        self._task = self._progress.add_task("starting", total=trials, state="")
        self._progress.start()

    def cell(self, name: str) -> None:
        """Name the cell beside the bar."""
        self._update(description=name, state="")

    def advance(self, trials: int) -> None:
        """Move on."""
        if self._task is not None:
            self._progress.advance(self._task, trials)

    def state(self, best_us: float | None, rejected: dict[str, int]) -> None:
        """Show best and rejects."""
        best = "" if best_us is None else f"best {best_us:.1f} µs predicted"
        refused = ", ".join(f"{count} {reason}" for reason, count in sorted(rejected.items()))
        self._update(state=" · ".join(filter(None, (best, refused))))

    def line(self, text: str) -> None:
        """Print above the bar."""
        self._progress.console.print(text, soft_wrap=True)

    def stop(self) -> None:
        """Take the bar away."""
        self._progress.stop()

    def _update(self, **fields: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, **fields)  # type: ignore[arg-type]


def choose_reporter(quiet: bool, out: TextIO) -> Reporter:
    """Nothing if quiet, a bar on a terminal, lines elsewhere."""
    if quiet:
        return Silent()
    return Bar(out) if out.isatty() else Lines(out)
