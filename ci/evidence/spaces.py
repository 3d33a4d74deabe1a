"""Stage: recorded spaces, as far as time goes; what replay and the cost model are judged on."""

from __future__ import annotations

from typing import Any

from evidence.grids import GRIDS
from evidence.points import SPACES
from evidence.workplace import Workplace

from autotune.binary_facts import write_facts
from autotune.record import record, write_spaces

_CHUNK, _REHEARSAL_CHUNK = 96, 8


def spaces(place: Workplace) -> dict[str, Any]:
    """A grid of each template's space in full at 4 or 5 points, failures included"""
    found = []
    for number, (kernel, axes, sizes) in enumerate(SPACES):
        cell = place.cell(kernel, axes, *(sizes[:2] if place.rehearsal else sizes))
        share = place.deadline.share(len(SPACES) - number)
        recording = record(
            cell,
            place.builder,
            place.device,
            share,
            grid=GRIDS[kernel],
            ahead=place.ahead,
            chunk_size=_REHEARSAL_CHUNK if place.rehearsal else _CHUNK,
        )
        facts = write_facts(recording.facts, place.folder)
        paths = write_spaces(recording.spaces, place.folder)
        print(f"{facts.name}: {recording.done} of {recording.wanted} binaries", flush=True)
        for space, path in zip(recording.spaces, paths, strict=True):
            failed = sum(time is None for time in space.times_us)
            found.append(
                {
                    "file": path.name,
                    "bytes": path.stat().st_size,
                    "complete": space.complete,
                    "configs": len(space.configs),
                    "failed": failed,
                    "legal": len(cell.space.legal),
                    "best_us": space.best_us,
                    "origin": space.origin,
                }
            )
            print(f"  {path.name}: {len(space.configs)}, {failed} failed, best {space.best_us} us")
    return {"spaces": found}
