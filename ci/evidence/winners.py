"""Stage: tuned against default, floor and peers; what the KV block size is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from evidence.families import COMPILED, FAMILIES, Family
from evidence.tables import write_tables
from evidence.two_processes import TwoProcesses
from evidence.workplace import Workplace

from autotune.cell import Cell
from autotune.conclusion import conclude
from autotune.judge import DuplicateFinder
from autotune.records import Evaluation, Selection
from autotune.results import ResultsStore
from autotune.standing import Standing, compare_with_peers
from autotune.study import SearchOptions, listed

_TRIALS, _REHEARSAL_TRIALS = 40, 2
_REHEARSAL_FAMILIES, _REHEARSAL_SIZES = 5, 2
_OPTIONS = SearchOptions(effort="quick", sampler="none (the model's favourites)")


def winners(place: Workplace) -> dict[str, Any]:
    """The model's favourites raced against default, library and peers, by order of value"""
    ceilings = place.device.ceilings()
    store = ResultsStore(place.folder / "results")
    wanted = FAMILIES[:_REHEARSAL_FAMILIES] if place.rehearsal else FAMILIES
    cells = [_cell(place, family) for family in wanted]
    compiling = [_compile(place, cell) for cell in cells]
    points: list[dict[str, Any]] = []
    standings: list[dict[str, Any]] = []
    chosen: dict[int, Sequence[Selection]] = {}
    left: list[str] = []
    with place.another_gpu() as second:
        device = TwoProcesses(place.device, second)
        for number, (family, cell) in enumerate(zip(wanted, cells, strict=True)):
            if place.deadline.passed:
                left.append(family.name)
                compiling[number].cancel()
                continue
            screened = map(DuplicateFinder().screen, compiling[number].result())
            result = conclude(cell, place.builder, _OPTIONS, list(screened), "trials", device)
            store.merge(place.arch.name, family.kernel, [result])
            chosen[number] = result.selections
            points += [_told(family, cell, one, ceilings) for one in result.selections]
            peers = [f"{family.kernel}/{peer}" for peer in family.peers]
            standings += _compared(place, family, cell, result.selections, peers)
            print(f"{family.name}: {_line(points[-len(result.selections) :])}", flush=True)
    for number, size, peer in COMPILED:
        if number not in chosen or size >= len(chosen[number]) or place.deadline.passed:
            left.append(f"{peer} beside {FAMILIES[number].name}, size {size}")
            continue
        family, one = wanted[number], chosen[number][size : size + 1]
        standings += _compared(place, family, cells[number], one, [f"{family.kernel}/{peer}"])
    document = {
        "ceilings": {name: ceilings.get(name) for name in ("copy_gbs", "gemm_tflops")},
        "points": points,
        "peers": standings,
        "left_out_for_time": left,
    }
    write_tables(document, place.folder)
    print(f"left out for time: {', '.join(left) or 'nothing'}")
    return document


def _cell(place: Workplace, family: Family) -> Cell:
    sizes = family.sizes[:_REHEARSAL_SIZES] if place.rehearsal else family.sizes
    return place.cell(family.kernel, family.axes, *sizes)


def _compile(place: Workplace, cell: Cell) -> Future[list[Evaluation]]:
    """Defaults and favourites, compiled while other cells are timed."""
    trials = _REHEARSAL_TRIALS if place.rehearsal else _TRIALS
    usual = {cell.space.binary_of(config) for config in cell.defaults.values()}
    configs = [cell.representative(b) for b in listed(cell, max(trials, len(usual)))]
    return place.ahead.submit(place.builder.evaluate, cell.spec, cell.problem, configs)


def _compared(
    place: Workplace,
    family: Family,
    cell: Cell,
    selections: Sequence[Selection],
    peers: Sequence[str],
) -> list[dict[str, Any]]:
    found: list[Standing] = compare_with_peers(cell, selections, place.device, peers)
    return [{"family": family.name, **standing.to_json()} for standing in found]


def _told(
    family: Family, cell: Cell, selection: Selection, ceilings: Mapping[str, Any]
) -> dict[str, Any]:
    point = cell.problem.at(**selection.nearest)
    floor_us = None
    if ceilings:  # least possible time over what this GPU was seen to reach in this very stage
        floor_us = max(
            cell.spec.min_bytes(point) / (ceilings["copy_gbs"] * 1e3),
            cell.spec.flops(point) / (ceilings["gemm_tflops"] * 1e6),
        )
    return {
        "family": family.name,
        "kernel": family.kernel,
        "exact": cell.problem.named_axes(),
        "sizes": selection.nearest,
        "point": point.label(),
        "choice": selection.choice,
        "provenance": selection.provenance.value,
        "time_us": selection.time_us,
        "default_us": selection.default_us,
        "gain": selection.gain,
        "floor_us": floor_us,
        "of_floor": floor_us and selection.time_us and floor_us / selection.time_us,
        "reason": selection.reason,
    }


def _line(points: Sequence[Mapping[str, Any]]) -> str:
    gains = [point["gain"] for point in points if point["gain"] is not None]
    floors = [point["of_floor"] for point in points if point["of_floor"] is not None]
    if not gains or not floors:
        return f"{len(points)} points, nothing timed"
    return (
        f"{len(points)} points, {min(gains):.2f} to {max(gains):.2f} x the default, "
        f"{min(floors):.0%} to {max(floors):.0%} of the floor"
    )
