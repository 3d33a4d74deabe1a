"""What the workers of `fleet_trial` log, each line at once, and what can be told from it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.search.leases import EVALUATION, LEASE
from autotune.search.ledger import Asked, Ledger


def write_log(path: Path, *words: object) -> None:
    """Append a line at once; a killed writer leaves whole lines."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, (" ".join(map(str, words)) + "\n").encode())
    os.close(handle)


def logged(log: Path) -> None:
    """Let this process's ledgers log leases before, and evaluations and ends after they stand.

    Both happen in the worker's turn, so the log has them in the order in which they took place.
    """
    note, tell = Ledger.note, Ledger.tell

    def noting(self: Ledger, number: int, name: str, fact: Any) -> None:
        trial = f"{self._study.study_name}:{number}"
        if name == LEASE and fact is not None:
            write_log(log, LEASE, trial, os.getpid())
        note(self, number, name, fact)
        if name == EVALUATION:
            write_log(log, EVALUATION, trial, os.getpid())

    def telling(self: Ledger, asked: Asked, *words: Any, **facts: Any) -> None:
        tell(self, asked, *words, **facts)
        write_log(log, "told", f"{self._study.study_name}:{asked.number}", os.getpid())

    Ledger.note, Ledger.tell = noting, telling  # type: ignore[method-assign]


def read_log(log: Path) -> list[tuple[str, str, int]]:
    """Event, trial and process of every line, in the order in which they took place."""
    lines = log.read_text().splitlines() if log.exists() else []
    words = [line.split() for line in lines]
    return [(event, trial, int(process)) for event, trial, process in words]


def holders(log: Path) -> dict[str, int]:
    """Process that holds each trial that is leased and not evaluated."""
    held: dict[str, int] = {}
    for event, trial, process in read_log(log):
        if event == LEASE:
            held[trial] = process
        elif event == EVALUATION:
            held.pop(trial, None)
    return held


def takeovers(log: Path, killed: Sequence[int]) -> int:
    """How many leases that a killed process held went to another."""
    held: dict[str, int] = {}
    count = 0
    for event, trial, process in read_log(log):
        if event == LEASE:
            count += held.get(trial) in killed
            held[trial] = process
    return count
