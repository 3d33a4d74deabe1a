"""The story of `autotune worker`: one of several processes that search cells together."""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autotune.build import Builder
from autotune.deadline import Deadline
from autotune.measure import Device
from autotune.progress import Reporter
from autotune.results import CellResult, ResultsStore
from autotune.search.leases import RESULT
from autotune.search.shared import SharedStorage, storage_errors
from autotune.shared_search import REQUEST, SharedSearch, Step, Task
from autotune.study import study_name
from autotune.tune import Tuned, one_line


@dataclass(frozen=True, slots=True)
class Pace:
    """How a worker spends its time."""

    trials_at_once: int
    """Leased and evaluated together: as many as there are compiler processes."""
    patience_s: float = 60.0
    """A worker that has not shown a sign of life for so long is taken for dead."""
    poll_s: float = 1.0
    """Wait so long when all that is left is in other workers' hands."""


def requested(shared: SharedStorage) -> dict[str, Task]:
    """What the workers of this storage have been asked to do, by the name of the study."""
    with storage_errors():
        notes = shared.notes()
    return {
        name: Task.from_request(known[REQUEST]) for name, known in notes.items() if REQUEST in known
    }


def is_finished(shared: SharedStorage, task: Task) -> bool:
    """Whether the result of a cell is there to be written."""
    with storage_errors():
        return RESULT in (shared.notes_of(study_name(task.cell)) or {})


def work(
    tasks: Sequence[Task],
    builders: Mapping[str, Builder],
    devices: Mapping[str, Device],
    shared: SharedStorage,
    store: ResultsStore,
    pace: Pace,
    deadline: Deadline,
    reporter: Reporter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Tuned]:
    """Search all cells together with whoever else does, until all are done or time runs out.

    `builders` and `devices` are by name of the GPU; without a device all is predicted. Every worker
    writes the results of all cells, its own and the others', to its store: they are the same bytes.

    Raises:
        StorageError: the storage went away.
        UsageError: a study was begun with other options.
    """
    worker = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
    searches = [
        SharedSearch(
            task,
            builders[task.cell.arch.name],
            shared,
            worker,
            pace.patience_s,
            reporter,
            devices.get(task.cell.arch.name),
        )
        for task in tasks
    ]
    # Workers that start at different cells seldom wait for each other's batches.
    start = secrets.randbelow(len(searches))
    open_searches = searches[start:] + searches[:start]
    done: dict[str, Tuned] = {}
    with storage_errors():
        while open_searches and not deadline.passed:
            moved = False
            for search in tuple(open_searches):
                step = Step.WORKED
                while step is Step.WORKED and not deadline.passed:
                    step = search.step(pace.trials_at_once)
                    moved = moved or step is not Step.WAITING
                result = search.result
                if result is not None:
                    open_searches.remove(search)
                    done[search.name] = tuned = _stored(search.task, result, shared, store)
                    reporter.line(
                        f"[{len(done)}/{len(searches)}] {one_line(tuned.cell, tuned.result)}"
                    )
            if open_searches and not moved:
                sleep(pace.poll_s)
    return [done[search.name] for search in searches if search.name in done]


def _stored(task: Task, result: CellResult, shared: SharedStorage, store: ResultsStore) -> Tuned:
    """Write a result, unless it stands there; in turns, since the folder may be shared, too."""
    gpu, kernel = task.cell.arch.name, task.cell.spec.name
    with shared.turns.turn(f"results-{gpu}-{kernel}"):
        if result not in store.read(gpu, kernel):
            store.merge(gpu, kernel, [result])
    return Tuned(task.cell, result, store.path(gpu, kernel))
