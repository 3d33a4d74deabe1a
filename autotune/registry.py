"""Tuned kernels by problem: all that an engine needs to see of this package.

A lookup goes through tiers, each logged once with its reason; a bad results file costs the tuning,
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
from autotune.errors import CorruptResultError
from autotune.kernels import KERNELS, load_kernel
from autotune.kernels.spec import KernelSpec
from autotune.paths import cache_dir, results_dirs, templates_dir
from autotune.problem import Problem
from autotune.records import Provenance, Selection
from autotune.render import TemplateFolder, import_file
from autotune.results import ResultsStore
from autotune.space import Config

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


@dataclass(frozen=True, slots=True)
class BoundKernel:
    """A resolved kernel, rendered and imported."""

    resolved: Resolved
    launch: Callable[..., Any]
    """The template's host function; its signature stands in the template."""


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

    def resolve(self, kernel: str, problem: Problem) -> Resolved:
        """Choose the configuration for a problem; the default where nothing tuned fits.

        Raises:
            UnknownChoiceError: no such kernel.
        """
        spec = load_kernel(kernel)
        space = spec.space(problem, self.arch)
        exact = problem.exact_axes()
        fitting = [
            (gpu, selection)
            for gpu, selection in self._selections[kernel]
            if selection.exact == exact and space.why_illegal(selection.config) is None
        ]
        if not fitting:
            config = spec.default_config(problem, self.arch)
            source = (
                f"nothing tuned for {problem.label('exact')} on {self.arch.name} (tier default)"
            )
            resolved = Resolved(kernel, problem, config, Tier.DEFAULT, None, source)
        else:
            gpu, selection = min(fitting, key=lambda item: self._rank(problem, *item))
            tier = self._tier(problem, gpu, selection)
            sizes = ",".join(f"{name}={size}" for name, size in selection.nearest.items())
            source = f"{selection.provenance} on {gpu} at {sizes} (tier {tier})"
            resolved = Resolved(kernel, problem, selection.config, tier, selection, source)
        _log.info("%s %s: %s", kernel, problem.label(), resolved.source)
        return resolved

    def bind(self, kernel: str, problem: Problem) -> BoundKernel:
        """Resolve, render and import a kernel; imports triton and torch.

        Raises:
            UnknownChoiceError: no such kernel.
            RenderError: the template does not render or import.
        """
        resolved = self.resolve(kernel, problem)
        rendered = self._templates.render(load_kernel(kernel), problem, resolved.config)
        module = import_file(rendered.write(self._cache))
        return BoundKernel(resolved, module.launch)

    def block_sizes(self, kernel: str, exact: Mapping[str, Any]) -> dict[int, float]:
        """Geometric mean time per tuned KV block size, for the other exact axes given; us."""
        times: dict[int, list[float]] = {}
        for gpu, selection in self._selections[kernel]:
            rest = {name: v for name, v in selection.exact.items() if name != "block_size"}
            wanted = {name: v for name, v in exact.items() if name != "block_size"}
            if gpu == self.arch.name and rest == wanted and selection.time_us:
                times.setdefault(int(selection.exact["block_size"]), []).append(selection.time_us)
        return {
            size: math.exp(sum(map(math.log, values)) / len(values))
            for size, values in sorted(times.items())
        }

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


def _distance(problem: Problem, nearest: Mapping[str, int]) -> float:
    """Sum of the gaps between sizes, in doublings."""
    return sum(
        abs(math.log2(1 + size) - math.log2(1 + nearest[name]))
        for name, size in problem.nearest_axes().items()
    )


def kernel_spec(name: str) -> KernelSpec[Any]:
    """Return the spec of a kernel: its problem type is how an engine says what it needs."""
    return load_kernel(name)
