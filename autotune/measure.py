"""Predicted finalists, timed: what a search ends with where the GPU is at hand.

Who wins among them meets the library (`library`), which an engine can run in a kernel's place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from autotune.cell import Cell
from autotune.config import Config
from autotune.library import PREFIX, routines_for
from autotune.problem import Problem
from autotune.race import Interval, Race, speedup
from autotune.records import CompileReport, Environment, Evaluation, Provenance, Selection, Status
from autotune.select import LEAST_GAIN

MOST_REASON = 500
"""Characters that a results file takes."""


class Device(Protocol):
    """Something that runs kernels: a GPU, or a stand-in for one."""

    def describe(self, environment: Environment) -> Environment:
        """The compiler's environment, completed by what a measurement depends on."""
        ...

    def wrong(self, cell: Cell, config: Config) -> str | None:
        """Why a configuration must not be timed (wrong, crashed), None if it is right."""
        ...

    def race(
        self,
        cell: Cell,
        point: Problem,
        configs: Sequence[Config],
        *,
        peers: Sequence[str] = (),
        fresh: bool = False,
    ) -> Race:
        """Time configurations in turns, peers (routines of the library, too) behind them.

        `fresh` in a process that has run nothing before.
        """
        ...


def measure(
    cell: Cell,
    evaluations: Sequence[Evaluation],
    predicted: Sequence[Selection],
    device: Device,
    finalists: int,
    further: Sequence[Config] = (),
) -> list[Selection]:
    """Race the finalists of every point; where a race fails, the predicted selection stays.

    In a repeatable cell all finalists have the order of summation that was predicted to be best. A
    default that has another is raced to compare with, and cannot win; nor can the library.

    Args:
        cell: searched.
        evaluations: of its binaries, the defaults' among them.
        predicted: one selection per point.
        device: what times.
        finalists: how many of the predicted best race beside the default.
        further: configurations that race, too, where they compiled to something sound.
    """
    order = cell.order(cell.space.named(predicted[0].config))
    usable = [
        evaluation
        for evaluation in evaluations
        if evaluation.status is Status.OK and order in cell.orders(evaluation)
    ]
    # A default may be the twin of another binary: then it is in no candidate's place, yet runs.
    reports = {cell.space.binary_of(e.config): e.reports for e in evaluations}
    faults: dict[Config, str | None] = {}
    sound = {cell.space.binary_of(evaluation.config) for evaluation in usable}
    more = [
        config
        for config in further
        if cell.space.binary_of(config) in sound and cell.order(config) == order
    ]
    return [
        _measure_at(cell, point, usable, reports, selection, device, finalists, more, faults, order)
        for point, selection in zip(cell.points, predicted, strict=True)
    ]


def _measure_at(
    cell: Cell,
    point: Problem,
    usable: Sequence[Evaluation],
    reports: Mapping[Config, tuple[CompileReport, ...]],
    predicted: Selection,
    device: Device,
    finalists: int,
    further: Sequence[Config],
    faults: dict[Config, str | None],
    order: Config | None,
) -> Selection:
    ranked = sorted(
        (cell.best_at(point, evaluation, order) for evaluation in usable),
        key=lambda choice: choice.prediction.time_us,
    )
    default = cell.defaults[point]
    chosen = (choice.config for choice in ranked[:finalists])
    entrants = list(dict.fromkeys((default, *chosen, *further)))
    for config in entrants:
        if config not in faults:
            faults[config] = device.wrong(cell, config)
    sound = [config for config in entrants if faults[config] is None]
    run = device.race(cell, point, sound) if sound else Race.failed(0, "nobody is right")
    timed = [index for index, samples in enumerate(run.samples_us) if samples]
    eligible = [index for index in timed if cell.order(sound[index]) == order]
    if not eligible:
        return predicted
    winner = min(eligible, key=lambda index: run.timing(index).median_us)
    base = sound.index(default) if default in sound else None
    base = base if base in timed else None
    rival = base if base in eligible else None
    winner, confirmed, reason = _dethrone(cell, point, device, sound, run, winner, rival)
    best, final = sound[winner], run.timing(winner, confirmed)
    kernel = Selection(
        exact=point.exact_axes(),
        nearest=point.nearest_axes(),
        config=cell.space.stored(best),
        provenance=Provenance.MEASURED,
        time_us=final.median_us,
        error_factor=None,
        default_us=None if base is None else run.timing(base).median_us,
        floor_us=cell.floor_us(point),
        reason=f"{reason}, of {len(timed)} timed in turns",
        reports=reports[cell.space.binary_of(best)],
        timing=final,
    )
    others = () if base is None or base == winner else (default,)
    return _challenge(cell, point, device, kernel, (best, *others))


def _challenge(
    cell: Cell, point: Problem, device: Device, kernel: Selection, configs: Sequence[Config]
) -> Selection:
    """The library instead of a kernel where it is faster, by the rule that a kernel must pass.

    Args:
        cell: of the point.
        point: where `kernel` was selected.
        device: what times.
        kernel: the selection so far.
        configs: its configuration, then the default if that is another and right.
    """
    names = () if cell.repeatable else routines_for(point)
    if not names:
        return kernel
    run = device.race(cell, point, configs, peers=[PREFIX + name for name in names])
    first = len(configs)
    timed = [index for index in range(first, first + len(names)) if run.samples_us[index]]
    if not timed or not run.samples_us[0]:
        faults = (run.faults[first + number] for number in range(len(names)))
        told = "; ".join(f"{name}: {why}" for name, why in zip(names, faults, strict=True))
        return _with_reason(kernel, f"the library was not timed ({told})")
    fastest = min(timed, key=lambda index: run.timing(index).median_us)
    name = names[fastest - first]
    gain = speedup(run.samples_us[0], run.samples_us[fastest])
    if not _convincing(gain):
        return _with_reason(kernel, f"library {name} gave {_text(gain)} of it")
    again = device.race(cell, point, configs[:1], peers=[PREFIX + name], fresh=True)
    if not all(again.samples_us):
        return _with_reason(kernel, f"library {name} failed in a fresh process")
    second = speedup(again.samples_us[0], again.samples_us[1])
    if not _convincing(second):
        return _with_reason(kernel, f"library {name} gave {_text(second)} in a fresh process")
    final = run.timing(fastest, again.timing(1).median_us)
    has_default = kernel.default_us is not None and run.samples_us[first - 1]
    return dataclasses.replace(
        kernel,
        library=name,
        time_us=final.median_us,
        default_us=run.timing(first - 1).median_us if has_default else kernel.default_us,
        reason=f"the library: {name} gave {_text(gain)} the fastest kernel, {_text(second)} when "
        f"repeated, of {len(timed)} timed in turns",
        reports=(),
        timing=final,
    )


def _with_reason(selection: Selection, more: str) -> Selection:
    return dataclasses.replace(selection, reason=f"{selection.reason}; {more}"[:MOST_REASON])


def _dethrone(
    cell: Cell,
    point: Problem,
    device: Device,
    sound: Sequence[Config],
    run: Race,
    winner: int,
    base: int | None,
) -> tuple[int, float | None, str]:
    """Who is selected, its median in a fresh process, and why.

    The default stays unless the winner beats it in the race and again in a process of its own.
    """
    contest = [winner] if base in (None, winner) else [base, winner]
    if base is not None and base != winner:
        gain = speedup(run.samples_us[base], run.samples_us[winner])
        if not _convincing(gain):
            return base, None, f"the default: the best gave {_text(gain)}"
    again = device.race(cell, point, [sound[index] for index in contest], fresh=True)
    if not all(again.samples_us):
        if base is not None and base != winner:
            return base, None, "the default: the fastest failed in a fresh process"
        return winner, None, "fastest; not confirmed, a fresh process failed"
    confirmed = again.timing(len(contest) - 1).median_us
    if base is None:
        return winner, confirmed, "fastest"
    if base == winner:
        return winner, confirmed, "the default: fastest"
    second = speedup(again.samples_us[0], again.samples_us[1])
    if not _convincing(second):
        before = again.timing(0).median_us
        return base, before, f"the default: in a fresh process the fastest gave {_text(second)}"
    return winner, confirmed, f"fastest; {_text(gain)} the default, {_text(second)} when repeated"


def _convincing(gain: Interval) -> bool:
    return gain.low > 1.0 and gain.ratio >= LEAST_GAIN


def _text(gain: Interval) -> str:
    return f"{gain.ratio:.3f}x [{gain.low:.3f}, {gain.high:.3f}]"
