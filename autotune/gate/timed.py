"""The timed tier: what changed between two trees, raced on one GPU in one job.

Baseline, candidate and baseline again take turns, so that clock and temperature hit all alike; two
canaries (a copy and a matrix product that no change can touch) tell a moved kernel from a moved
machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from autotune.arch import GpuArch
from autotune.gate.finding import Finding
from autotune.gate.noise import LEAST_CHANGE, TimingVerdict, judge_paired
from autotune.gate.tree import Tree
from autotune.gate.verdict import Verdict
from autotune.kernels import load_kernel
from autotune.kernels.spec import KernelSpec
from autotune.policy import Policy, mode_for
from autotune.pool import Outcome, WorkerPool
from autotune.problem import Problem
from autotune.race import Race
from autotune.records import Selection, Status
from autotune.render import RenderedKernel, TemplateFolder

_RACE_TIMEOUT_S = 300.0
_CANARY_TIMEOUT_S = 60.0


class RaceTrack(Protocol):
    """Something that times rendered kernels: a GPU, or a stand-in for one."""

    def race(
        self, kernel: str, point: Problem, entrants: Sequence[RenderedKernel]
    ) -> list[list[float]]:
        """Samples in microseconds for each entrant, taken in turns; empty on failure."""
        ...

    def canaries(self) -> Mapping[str, float]:
        """Median times of kernels that no template can change, microseconds."""
        ...


class GpuTrack:
    """The GPU of this machine, driven through a worker that may die."""

    def __init__(self, pool: WorkerPool, cache: Path) -> None:
        self._pool = pool
        self._cache = cache

    def race(
        self, kernel: str, point: Problem, entrants: Sequence[RenderedKernel]
    ) -> list[list[float]]:
        """Time in one process, interleaved."""
        request: dict[str, Any] = {
            "op": "race",
            "kernel": kernel,
            "problem": {**point.exact_axes(), **point.nearest_axes()},
            "seed": 0,
            "device": "cuda",
            "nvml_index": 0,
            "policy": Policy(mode=mode_for(point.nearest_axes())).to_json(),
            "paths": [str(entrant.write(self._cache)) for entrant in entrants],
        }
        ((_, reply),) = self._pool.run([request], _RACE_TIMEOUT_S)
        if reply.outcome is not Outcome.ANSWERED or reply.answer["status"] != Status.OK:
            return []
        found = Race.from_json(reply.answer)
        return [] if any(found.faults) else [list(samples) for samples in found.samples_us]

    def canaries(self) -> Mapping[str, float]:
        """Time a copy and a matrix product."""
        request = {"op": "canaries", "device": "cuda"}
        ((_, reply),) = self._pool.run([request], _CANARY_TIMEOUT_S)
        if reply.outcome is not Outcome.ANSWERED or reply.answer["status"] != Status.OK:
            return {}
        samples: Mapping[str, list[float]] = reply.answer["samples"]
        return {name: statistics.median(values) for name, values in samples.items()}


class TimedGate:
    """Races what differs between two trees on one GPU."""

    def __init__(
        self,
        arch: GpuArch,
        baseline: Tree,
        candidate: Tree,
        track: RaceTrack,
        least: float = LEAST_CHANGE,
    ) -> None:
        self._arch = arch
        self._baseline = baseline
        self._candidate = candidate
        self._track = track
        self._least = least
        self._before = TemplateFolder(baseline.templates)
        self._after = TemplateFolder(candidate.templates)

    def compare(self, kernel: str) -> Iterator[Finding]:
        """Race every point whose source differs; the others cannot have changed.

        Raises:
            CorruptResultError: a results file cannot be trusted.
            RenderError: a template does not render.
        """
        old = self._selections(self._baseline, kernel)
        new = self._selections(self._candidate, kernel) if self._candidate.results else old
        spec = load_kernel(kernel)
        for point, selection in new.items():
            if point in old:
                yield self._compare_point(spec, point, old[point], selection)

    def _selections(self, tree: Tree, kernel: str) -> dict[Problem, Selection]:
        if tree.results is None:
            return {}
        spec = load_kernel(kernel)
        return {
            spec.problem_type.from_axes({**selection.exact, **selection.nearest}): selection
            for cell in tree.store().read(self._arch.name, kernel)
            for selection in cell.selections
        }

    def _compare_point(
        self, spec: KernelSpec[Any], point: Problem, old: Selection, new: Selection
    ) -> Finding:
        if old.library is not None or new.library is not None:
            same = old.library == new.library
            words = "not ours; not timed" if same else "autotune run times what an engine would run"
            return Finding(
                Verdict.SAME if same else Verdict.RESELECTED,
                self._arch.name,
                spec.name,
                point.label(),
                ": ".join((*(new.changes_from(old) or [new.choice]), words)),
            )
        before = self._before.render(spec, point, old.config)
        after = self._after.render(spec, point, new.config)
        gpu, where = self._arch.name, point.label()
        # Host knobs are in the source, too: equal sources are equal in all that can be timed.
        if before.digest == after.digest:
            return Finding(Verdict.SAME, gpu, spec.name, where, "the same source; not timed")
        samples: list[list[float]] = [[], [], []]
        for attempt in (1, 2):
            standing = self._track.canaries()
            taken = self._track.race(spec.name, point, [before, after, before])
            if not taken:
                return Finding(
                    Verdict.UNSOUND, gpu, spec.name, where, "a side failed to run on the GPU"
                )
            moved = _moved(standing, self._track.canaries(), self._least)
            for known, more in zip(samples, taken, strict=True):
                known += more
            told = judge_paired(samples[0], samples[1], samples[2], self._least)
            if moved is None and told.verdict is not Verdict.AMBIGUOUS:
                return _timed(told, gpu, spec.name, where, attempt)
        if moved is not None:
            return Finding(Verdict.INCOMPARABLE, gpu, spec.name, where, moved)
        return _timed(told, gpu, spec.name, where, 2)


def _timed(told: TimingVerdict, gpu: str, kernel: str, where: str, attempt: int) -> Finding:
    ratio = told.ratio
    detail = (
        f"{ratio.ratio:.3f}x the baseline's time [{ratio.low:.3f}, {ratio.high:.3f}], "
        f"counted from {told.threshold:.1%}" + (", second try" if attempt > 1 else "")
    )
    return Finding(told.verdict, gpu, kernel, where, detail, ratio=ratio, threshold=told.threshold)


def _moved(before: Mapping[str, float], after: Mapping[str, float], least: float) -> str | None:
    """Which canary changed its time while a race was on; None if all stood still."""
    if not before or before.keys() != after.keys():
        return "a canary did not run"
    for name, time_us in before.items():
        change = after[name] / time_us - 1.0
        if abs(change) > least:
            return f"the machine changed speed: canary {name} by {change:+.1%} during the race"
    return None
