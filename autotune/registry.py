"""Tuned kernels by problem: all that an engine needs to see of this package.

A lookup goes through tiers and says which one served, and why; a bad results file costs the tuning,
never the start. Everything is resolved when a kernel is bound, so launching looks up nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from autotune.arch import GPUS, GpuArch, lookup
from autotune.config import Config
from autotune.dispatch import remembering_launch
from autotune.errors import AutotuneError, CorruptResultError
from autotune.kernels import KERNELS, load_kernel
from autotune.kernels.quantised_layer import QuantisedLayer
from autotune.kernels.spec import KernelSpec
from autotune.library import load_routine, why_not
from autotune.paths import cache_dir, results_dirs, templates_dir
from autotune.problem import Problem
from autotune.records import Provenance, Selection
from autotune.render import TemplateFolder, import_file
from autotune.results import ResultsStore
from autotune.scratch import Scratch

__all__ = [
    "AutotuneError",
    "BlockSizeTimes",
    "BoundKernel",
    "Config",
    "KernelSpec",
    "Problem",
    "Provenance",
    "QuantisedLayer",
    "Resolved",
    "Selection",
    "Tier",
    "TunedKernels",
    "kernel_spec",
]

_log = logging.getLogger("autotune.registry")


class Tier(StrEnum):
    """How well a selection fits what was asked, best first."""

    EXACT = "exact"
    NEAREST = "nearest"
    SAME_ARCHITECTURE = "same_architecture"
    PREDICTED = "predicted"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Resolved:
    """The configuration to use for a problem."""

    kernel: str
    problem: Problem
    config: Config
    tier: Tier
    selection: Selection | None
    """The stored selection behind it; None for the default tier."""
    source: str
    """One line: where the configuration comes from."""
    library: str | None = None
    """Routine of torch's that was measured faster than the kernel, and serves in its place."""


@dataclass(frozen=True, slots=True)
class BoundKernel:
    """A resolved kernel, rendered and imported, or the routine that serves in its place."""

    resolved: Resolved
    launch: Callable[..., Any]
    """The template's host function, or the routine's: its signature stands in the template."""


@dataclass(frozen=True, slots=True)
class BlockSizeTimes:
    """What one attention kernel takes with each KV block size."""

    provenance: Provenance
    mean_us: Mapping[int, float]
    """Geometric mean over the points that all of them have."""


class TunedKernels:
    """Selections for one GPU from the results folders, and the kernels they name."""

    def __init__(
        self, arch: GpuArch, folders: Sequence[Path], templates: Path, cache: Path
    ) -> None:
        self.arch = arch
        self.refused: list[str] = []
        """Results files that could not be trusted, with the reason."""
        self._templates = TemplateFolder(templates)
        self._cache = cache
        self._scratch = Scratch()
        self._selections = {
            kernel: self._gather(kernel, [ResultsStore(folder) for folder in folders])
            for kernel in KERNELS
        }

    @classmethod
    def load(cls, gpu: str, results: str | Path | None = None) -> TunedKernels:
        """Read what was tuned for `gpu`.

        Raises:
            UnknownChoiceError: no such GPU in the table.
        """
        return cls(lookup(gpu), results_dirs(results), templates_dir(), cache_dir())

    def _gather(self, kernel: str, stores: Sequence[ResultsStore]) -> list[tuple[str, Selection]]:
        """Usable selections of this GPU and of its siblings (the same compiler target)."""
        siblings = [a.name for a in GPUS.values() if a.target == self.arch.target]
        found = []
        for gpu in sorted(siblings, key=lambda name: name != self.arch.name):
            for store in stores:
                try:
                    cells = store.read(gpu, kernel)
                except CorruptResultError as error:
                    self.refused.append(str(error))
                    _log.warning("results refused, defaults are used instead: %s", error)
                    continue
                # An untested default is worked out anew, for the very sizes that are asked for.
                found += [
                    (gpu, selection)
                    for cell in cells
                    for selection in cell.selections
                    if selection.provenance is not Provenance.DEFAULT
                ]
        return found

    def resolve(self, kernel: str, problem: Problem, *, repeatable: bool = False) -> Resolved:
        """Choose the configuration for a problem; the default where nothing tuned fits.

        If `repeatable`, one whose results depend on neither the run nor the neighbours in a batch;
        a default is then of what suits all sizes in one order of sums.

        Raises:
            UnknownChoiceError: no such kernel.
            UsageError: no configuration at all is legal for it on this GPU.
        """
        spec = load_kernel(kernel)
        space = spec.space(problem, self.arch)
        space = space.repeatable if repeatable else space
        exact = problem.exact_axes()
        fitting = [
            (gpu, selection)
            for gpu, selection in self._selections[kernel]
            if selection.exact == exact
            and space.why_illegal(selection.config) is None
            and (selection.library is None or _may_serve(selection.library, problem, repeatable))
        ]
        if not fitting:
            config = spec.default_config(problem, self.arch)
            config = space.steadied(config) if repeatable else config
            source = (
                f"nothing tuned for {problem.label('exact')} on {self.arch.name} (tier default)"
            )
            resolved = Resolved(kernel, problem, config, Tier.DEFAULT, None, source)
        else:
            gpu, selection = min(fitting, key=lambda item: self._rank(problem, *item))
            tier = self._tier(problem, gpu, selection)
            sizes = ",".join(f"{name}={size}" for name, size in selection.nearest.items())
            source = f"{selection.provenance} on {gpu} at {sizes} (tier {tier})"
            if selection.library is not None:
                source = f"{selection.choice}: {source}"
            resolved = Resolved(
                kernel, problem, selection.config, tier, selection, source, selection.library
            )
        _log.debug("%s %s: %s", kernel, problem.label(), resolved.source)
        return resolved

    def reduction_order(self, resolved: Resolved) -> Config:
        """Order in which a repeatable configuration sums: rows are equal where orders are."""
        spec = load_kernel(resolved.kernel)
        return spec.reduction_order(resolved.problem, resolved.config, self.arch)

    def bind(self, kernel: str, problem: Problem) -> BoundKernel:
        """Resolve, render and import a kernel.

        Raises:
            UnknownChoiceError, UsageError: as `resolve`.
            RenderError, StorageError: as `bind_resolved`.
        """
        return self.bind_resolved(self.resolve(kernel, problem))

    def bind_resolved(self, resolved: Resolved) -> BoundKernel:
        """Render and import a kernel that was resolved before; imports triton and torch.

        Where the library was faster its routine is made instead, and no kernel is rendered.

        Raises:
            RenderError: the template does not render or import.
            StorageError: the cache cannot be written.
        """
        if resolved.library is not None:
            return BoundKernel(resolved, load_routine(resolved.library, resolved.problem))
        spec = load_kernel(resolved.kernel)
        rendered = self._templates.render(spec, resolved.problem, resolved.config)
        module = import_file(rendered.write(self._cache))
        return BoundKernel(resolved, remembering_launch(module, self._scratch))

    def block_sizes(self, kernel: str, exact: Mapping[str, Any]) -> BlockSizeTimes | None:
        """Compare the KV block sizes tuned on this GPU, for the other exact axes given.

        Axes that `exact` leaves out are at their defaults.
        Measured times are not compared with predicted ones: where there are any, block sizes
        without are left out. None if nothing was tuned, or at no common point.
        """
        asked = load_kernel(kernel).problem_type.from_axes(exact)
        wanted = {k: v for k, v in asked.exact_axes().items() if k != "block_size"}
        found = [
            selection
            for gpu, selection in self._selections[kernel]
            if gpu == self.arch.name
            and selection.time_us is not None
            and {k: v for k, v in selection.exact.items() if k != "block_size"} == wanted
        ]
        best = min((s.provenance for s in found), key=list(Provenance).index, default=None)
        times: dict[int, dict[tuple[int, ...], float]] = {}
        for selection in found:
            if selection.provenance is best and selection.time_us is not None:
                point = tuple(selection.nearest.values())
                of_size = times.setdefault(int(selection.exact["block_size"]), {})
                of_size.setdefault(point, selection.time_us)
        common = set.intersection(*map(set, times.values())) if times else set()
        if best is None or not common:
            return None
        means = {
            size: math.exp(sum(math.log(of_size[point]) for point in common) / len(common))
            for size, of_size in sorted(times.items())
        }
        return BlockSizeTimes(best, means)

    def _tier(self, problem: Problem, gpu: str, selection: Selection) -> Tier:
        if selection.provenance is not Provenance.MEASURED:
            return Tier.PREDICTED
        if gpu != self.arch.name:
            return Tier.SAME_ARCHITECTURE
        return Tier.EXACT if selection.nearest == problem.nearest_axes() else Tier.NEAREST

    def _rank(self, problem: Problem, gpu: str, selection: Selection) -> tuple[int, bool, float]:
        """Tier first, then this GPU before its siblings, then the distance in sizes."""
        tier = list(Tier).index(self._tier(problem, gpu, selection))
        return tier, gpu != self.arch.name, _distance(problem, selection.nearest)


def _may_serve(library: str, problem: Problem, repeatable: bool) -> bool:
    """Whether a routine fits; none promises the same sums for a row whatever its neighbours."""
    return not repeatable and why_not(library, problem) is None


def _distance(problem: Problem, nearest: Mapping[str, int]) -> float:
    """Sum of the gaps between sizes, in doublings."""
    return sum(
        abs(math.log2(1 + size) - math.log2(1 + nearest[name]))
        for name, size in problem.nearest_axes().items()
    )


def kernel_spec(name: str) -> KernelSpec[Any]:
    """Return the spec of a kernel: its problem type is how an engine says what it needs."""
    return load_kernel(name)
