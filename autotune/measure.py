"""Predicted finalists, timed: what a search ends with where the GPU is at hand."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from autotune.cell import Cell
from autotune.device import LocalDevice
from autotune.pool import Outcome, WorkerPool
from autotune.problem import Problem
from autotune.race import speedup, timing
from autotune.records import CompileReport, Environment, Evaluation, Provenance, Selection, Status
from autotune.render import TemplateFolder
from autotune.select import LEAST_GAIN
from autotune.space import Config

_CHECK_TIMEOUT_S = 60.0
_RACE_TIMEOUT_S = 300.0


class Device(Protocol):
    """Something that runs kernels: a GPU, or a stand-in for one."""

    def describe(self, environment: Environment) -> Environment:
        """The compiler's environment, completed by what a measurement depends on."""
        ...

    def wrong(self, cell: Cell, config: Config) -> str | None:
        """Why a configuration must not be timed (wrong, crashed), None if it is right."""
        ...

    def race(self, cell: Cell, point: Problem, configs: Sequence[Config]) -> list[list[float]]:
        """Samples in microseconds for each configuration, taken in turns; empty on failure."""
        ...


class Gpu:
    """The first GPU of this machine, driven through a worker that may die."""

    def __init__(
        self, local: LocalDevice, pool: WorkerPool, templates: TemplateFolder, cache: Path
    ) -> None:
        self._local = local
        self._pool = pool
        self._templates = templates
        self._cache = cache

    def describe(self, environment: Environment) -> Environment:
        """Add torch, driver and device name."""
        return dataclasses.replace(
            environment,
            torch=importlib.metadata.version("torch"),
            driver=self._local.driver,
            device=self._local.name,
        )

    def wrong(self, cell: Cell, config: Config) -> str | None:
        """Check on the kernel's first hard problem's sizes, with poisoned memory."""
        sizes = cell.spec.hard_problems()[0].nearest_axes()
        request = self._request("check", cell, cell.problem.at(**sizes))
        request["path"] = self._path(cell, config)
        ((_, reply),) = self._pool.run([request], _CHECK_TIMEOUT_S)
        if reply.outcome is not Outcome.ANSWERED:
            return reply.detail
        reason: str | None = reply.answer.get("reason")
        return reason

    def race(self, cell: Cell, point: Problem, configs: Sequence[Config]) -> list[list[float]]:
        """Time in one process, interleaved."""
        request = self._request("race", cell, point)
        request["paths"] = [self._path(cell, config) for config in configs]
        ((_, reply),) = self._pool.run([request], _RACE_TIMEOUT_S)
        if reply.outcome is not Outcome.ANSWERED or reply.answer["status"] != Status.OK:
            return []
        samples: list[list[float]] = reply.answer["samples"]
        return samples

    def _request(self, operation: str, cell: Cell, problem: Problem) -> dict[str, object]:
        axes = {**problem.exact_axes(), **problem.nearest_axes()}
        return {
            "op": operation,
            "kernel": cell.spec.name,
            "problem": axes,
            "seed": 0,
            "device": "cuda",
        }

    def _path(self, cell: Cell, config: Config) -> str:
        return str(self._templates.render(cell.spec, cell.problem, config).write(self._cache))


def measure(
    cell: Cell,
    evaluations: Sequence[Evaluation],
    predicted: Sequence[Selection],
    device: Device,
    finalists: int,
) -> list[Selection]:
    """Race the finalists of every point; where a race fails, the predicted selection stays."""
    usable = [evaluation for evaluation in evaluations if evaluation.status is Status.OK]
    # A default may be the twin of another binary: then it is in no candidate's place, yet runs.
    reports = {cell.space.binary_of(e.config): e.reports for e in evaluations}
    faults: dict[Config, str | None] = {}
    return [
        _measure_at(cell, point, usable, reports, selection, device, finalists, faults)
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
    faults: dict[Config, str | None],
) -> Selection:
    ranked = sorted(
        (cell.best_at(point, evaluation) for evaluation in usable),
        key=lambda choice: choice.prediction.time_us,
    )
    default = cell.defaults[point]
    chosen = [choice.config for choice in ranked[:finalists]]
    entrants = [default, *(config for config in chosen if config != default)]
    for config in entrants:
        if config not in faults:
            faults[config] = device.wrong(cell, config)
    sound = [config for config in entrants if faults[config] is None]
    samples = device.race(cell, point, sound) if sound else []
    if not samples:
        return predicted
    times = {config: timing(s) for config, s in zip(sound, samples, strict=True)}
    best = min(times, key=lambda config: times[config].median_us)
    reason = f"fastest of {len(sound)} timed in turns"
    if best == default:
        reason = f"the default: {reason}"
    if default in times and best != default:
        gain = speedup(samples[sound.index(default)], samples[sound.index(best)])
        if gain.low <= 1.0 or gain.ratio < LEAST_GAIN:
            best = default
            reason = (
                f"the default: the best of {len(sound)} timed gave {gain.ratio:.3f}x "
                f"[{gain.low:.3f}, {gain.high:.3f}]"
            )
        else:
            reason += f"; {gain.ratio:.3f}x the default [{gain.low:.3f}, {gain.high:.3f}]"
    return Selection(
        exact=point.exact_axes(),
        nearest=point.nearest_axes(),
        config=best,
        provenance=Provenance.MEASURED,
        time_us=times[best].median_us,
        error_factor=None,
        default_us=times[default].median_us if default in times else None,
        floor_us=cell.floor_us(point),
        reason=reason,
        reports=reports[cell.space.binary_of(best)],
        timing=times[best],
    )
