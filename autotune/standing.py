"""Our selections beside others' implementations, timed in the same races."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from autotune.cell import Cell
from autotune.config import Config
from autotune.library import PREFIX
from autotune.problem import Problem
from autotune.race import Interval, Race, speedup
from autotune.records import Selection


class Track(Protocol):
    """Something that races configurations and peers; see `gpu`."""

    def race(
        self, cell: Cell, point: Problem, configs: Sequence[Config], *, peers: Sequence[str] = ()
    ) -> Race:
        """Samples of the configurations, then of the peers."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """One peer at one point."""

    kernel: str
    point: str
    peer: str
    our_us: float | None
    peer_us: float | None
    ratio: Interval | None
    """The peer's time over ours: above 1 we are faster."""
    fault: str | None
    """Why the peer was not timed: wrong, crashed, or not made for this problem."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        ratio = self.ratio
        return {
            "kernel": self.kernel,
            "point": self.point,
            "peer": self.peer,
            "our_us": self.our_us,
            "peer_us": self.peer_us,
            "ratio": None if ratio is None else [ratio.ratio, ratio.low, ratio.high],
            "fault": self.fault,
        }


def compare_with_peers(
    cell: Cell, selections: Sequence[Selection], device: Track, peers: Sequence[str]
) -> list[Standing]:
    """Race each point's selection against all peers in turns."""
    found: list[Standing] = []
    if not peers:
        return found
    for selection in selections:
        point = cell.problem.at(**selection.nearest)
        own = selection.library
        run = device.race(
            cell,
            point,
            [] if own is not None else [selection.config],
            peers=[*([] if own is None else [PREFIX + own]), *peers],
        )
        ours = run.samples_us[0]
        for number, peer in enumerate(peers, start=1):
            theirs = run.samples_us[number]
            found.append(
                Standing(
                    kernel=cell.spec.name,
                    point=point.label(),
                    peer=peer,
                    our_us=run.timing(0).median_us if ours else None,
                    peer_us=run.timing(number).median_us if theirs else None,
                    ratio=speedup(theirs, ours) if ours and theirs else None,
                    fault=run.faults[number] or (None if ours else f"ours: {run.faults[0]}"),
                )
            )
    return found
