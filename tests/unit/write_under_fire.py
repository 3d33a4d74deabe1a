"""Kill a process that writes results, at every call that it makes; count what cannot be read.

    python write_under_fire.py FOLDER KILLS

A script of its own, because it forks: a test process has threads. Prints counts as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from autotune.files import write_bytes_atomically
from autotune.paths import data_dir
from autotune.results import ResultsStore

GPU, KERNEL = "a100", "paged_attention_decode"


def contents(folder: Path) -> tuple[bytes, ...]:
    """Two valid results files of different length: the shipped one, and one cell of it."""
    shipped = ResultsStore(data_dir("results"))
    short = ResultsStore(folder / "short").merge(GPU, KERNEL, shipped.read(GPU, KERNEL)[:1])
    return shipped.path(GPU, KERNEL).read_bytes(), short.read_bytes()


def write(path: Path, text: bytes, fatal: int | None) -> int:
    """Replace the file as `ResultsStore` does, counting the calls into the operating system's
    modules and their returns; with `fatal`, die at that one.
    """
    count = 0

    def on_event(frame: FrameType, event: str, callee: Any) -> None:
        nonlocal count
        if event.startswith("c_"):
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

    sys.setprofile(on_event)
    write_bytes_atomically(path, text)
    sys.setprofile(None)
    return count


def main() -> None:
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    texts = contents(folder)
    store = ResultsStore(folder / "under-fire")
    path = store.path(GPU, KERNEL)
    path.parent.mkdir(parents=True)
    path.write_bytes(texts[0])
    # Counted in a child, too: a new process draws names for temporary files from a new source.
    note = folder / "events"
    if os.fork() == 0:
        note.write_text(str(write(path, texts[0], None)))
        os._exit(0)
    os.wait()
    events = int(note.read_text())
    current, unreadable, changed = 0, 0, 0
    for number in range(kills):
        child = os.fork()
        if child == 0:
            write(path, texts[1 - current], number % events)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "the child was to die"
        content = path.read_bytes()
        if content == texts[1 - current]:
            current, changed = 1 - current, changed + 1
        elif content != texts[current]:
            unreadable += 1
    left = [found for found in path.parent.iterdir() if found != path]
    document = {
        "kills": kills,
        "kill_points": events,
        "unreadable": unreadable,
        "changed": changed,
        "killed_in_a_write": len(left),
        "mistaken_for_results": sum(found.suffix == ".json" for found in left),
        "cells_read": len(store.read(GPU, KERNEL)),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
