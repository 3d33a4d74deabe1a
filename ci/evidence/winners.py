"""Stage: tuned against default, floor and peers; what the KV block size is worth."""

from __future__ import annotations

from typing import Any

from evidence.points import WINNERS
from evidence.workplace import Workplace

from autotune.cell import Cell
from autotune.peers import peers_of
from autotune.progress import Silent
from autotune.results import ResultsStore
from autotune.standing import compare_with_peers
from autotune.study import SearchOptions
from autotune.tune import tune_cell

_TRIALS, _REHEARSAL_TRIALS = 64, 2
_REHEARSAL_CELLS = 3


def winners(place: Workplace) -> dict[str, Any]:
    """The model's favourites raced against default and peers, per block size and shape"""
    ceilings = place.device.ceilings()
    store = ResultsStore(place.out / place.stage)
    wanted = WINNERS[:_REHEARSAL_CELLS] if place.rehearsal else WINNERS
    trials = _REHEARSAL_TRIALS if place.rehearsal else _TRIALS
    points, standings, left = [], [], []
    for number, (kernel, axes, sizes) in enumerate(wanted):
        if place.deadline.passed:
            left.append(f"{kernel} {axes}")
            continue
        cell = place.cell(kernel, axes, *sizes)
        options = SearchOptions(effort="exhaustive", trials=trials)
        share = place.deadline.share(len(wanted) - number)
        result = tune_cell(cell, place.builder, None, options, share, Silent(), place.device)
        store.merge(place.arch.name, kernel, [result])
        for selection in result.selections:
            point = cell.problem.at(**selection.nearest)
            floor_us = _floor_us(cell, point, ceilings)
            points.append(
                {
                    "kernel": kernel,
                    "point": point.label(),
                    "config": dict(selection.config),
                    "provenance": selection.provenance.value,
                    "time_us": selection.time_us,
                    "default_us": selection.default_us,
                    "gain": selection.gain,
                    "floor_us": floor_us,
                    "of_floor": floor_us and selection.time_us and floor_us / selection.time_us,
                    "reason": selection.reason,
                }
            )
        standings += compare_with_peers(cell, result.selections, place.device, peers_of(kernel))
        print(f"{kernel} {axes}: {len(result.selections)} points", flush=True)
    place.pack(store.folder)
    return {
        "ceilings": {name: ceilings.get(name) for name in ("copy_gbs", "gemm_tflops")},
        "points": points,
        "peers": [standing.to_json() for standing in standings],
        "left_out_for_time": left,
    }


def _floor_us(cell: Cell, point: Any, ceilings: Any) -> float | None:
    """Least possible time over the ceilings measured in the same stage, microseconds."""
    if not ceilings:
        return None
    bytes_us = cell.spec.min_bytes(point) / (ceilings["copy_gbs"] * 1e3)
    return max(bytes_us, cell.spec.flops(point) / (ceilings["gemm_tflops"] * 1e6))
