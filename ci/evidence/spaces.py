"""Stage: exhaustive spaces, as far as time goes; what replay and the cost model are judged on."""

from __future__ import annotations

from typing import Any

from evidence.points import SPACES
from evidence.workplace import Workplace

from autotune.record import record, write_spaces


def spaces(place: Workplace) -> dict[str, Any]:
    """Every configuration of each template at 4 to 6 points, failures included"""
    folder = place.out / place.stage
    found = []
    for number, (kernel, axes, sizes) in enumerate(SPACES):
        cell = place.cell(kernel, axes, *(sizes[:2] if place.rehearsal else sizes))
        share = place.deadline.share(len(SPACES) - number)
        recorded = record(cell, place.builder, place.device, share)
        for space, path in zip(recorded, write_spaces(recorded, folder), strict=True):
            failed = sum(time is None for time in space.times_us)
            found.append(
                {
                    "file": path.name,
                    "bytes": path.stat().st_size,
                    "configs": len(space.configs),
                    "failed": failed,
                    "legal": len(cell.space.legal),
                    "best_us": space.best_us,
                    "origin": space.origin,
                }
            )
            print(f"{path.name}: {len(space.configs)} of {len(cell.space.legal)}, {failed} failed")
    place.pack(folder)
    return {"spaces": found}
