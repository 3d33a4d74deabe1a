"""One cell under search: its space, its points, and what an evaluated binary is worth at each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from autotune.arch import GpuArch
from autotune.config import Config
from autotune.cost_model import CostModel, Prediction
from autotune.errors import AutotuneError
from autotune.kernels.spec import KernelSpec
from autotune.objective import DEFAULT_OBJECTIVE, OBJECTIVES
from autotune.prior import guess_all_us
from autotune.problem import Problem
from autotune.records import Evaluation, Status
from autotune.space import SearchSpace


@dataclass(frozen=True, slots=True)
class Choice:
    """A whole configuration at one point, and its predicted time."""

    config: Config
    prediction: Prediction


class Cell:
    """A kernel on a GPU at exact axes; `points` are the sizes it is judged at."""

    def __init__(
        self,
        spec: KernelSpec[Any],
        arch: GpuArch,
        problem: Problem,
        *,
        variants: bool = False,
        repeatable: bool = False,
        objective: str = DEFAULT_OBJECTIVE,
    ) -> None:
        """Set up.

        Args:
            spec: kernel.
            arch: GPU.
            problem: exact axes; sizes do not matter.
            variants: also the knobs that an ordinary search leaves alone.
            repeatable: nothing whose results differ from run to run, and one order of summation
                for all points.
            objective: what a search makes small, see `objective`.
        """
        self.spec = spec
        self.arch = arch
        self.problem = problem
        self.points: tuple[Problem, ...] = tuple(spec.points(problem))
        self.variants = variants
        self.repeatable = repeatable
        self.objective_name = objective
        self._objective = OBJECTIVES[objective]
        space = spec.space(problem, arch)
        space = space.widened if variants else space
        self.space: SearchSpace = space.repeatable if repeatable else space
        self.model = CostModel(arch)
        if not self.space.legal:
            raise AutotuneError(
                f"{spec.name} has no legal configuration on {arch.name} for "
                f"{problem.label('exact')}: {dict(self.space.rejected)}"
            )

    @property
    def name(self) -> str:
        """Text that names the cell: kernel, GPU and exact axes."""
        return f"{self.spec.name}/{self.arch.name}/{self.problem.label('exact')}"

    @cached_property
    def binaries(self) -> tuple[Config, ...]:
        """What can be compiled: legal configurations without their host knobs."""
        return tuple(self.space.binaries)

    def representative(self, binary: Config) -> Config:
        """Some whole configuration with that binary."""
        return self.space.binaries[binary][0]

    @cached_property
    def defaults(self) -> dict[Problem, Config]:
        """Default configuration at each point."""
        return {
            point: self.space.named(self.spec.default_config(point, self.arch))
            for point in self.points
        }

    @cached_property
    def prior(self) -> list[float]:
        """Guess of the objective of every binary, before compiling any."""
        floors = [self.floor_us(point) for point in self._guesses]
        columns = list(zip(*self._guesses.values(), strict=True))
        found = []
        for binary, times in zip(self.binaries, columns, strict=True):
            by_order: dict[Config | None, list[int]] = {}
            for index, config in enumerate(self.space.binaries[binary]):
                by_order.setdefault(self.order(config), []).append(index)
            found.append(
                min(
                    self._objective([min(at[i] for i in members) for at in times], floors)
                    for members in by_order.values()
                )
            )
        return found

    def seeds(self, count: int) -> list[Config]:
        """Binaries to try first: all defaults, then the favourites of each sampled point.

        In a repeatable cell also the defaults with what suits all sizes, and the favourite of all.
        """
        defaults = list(self.defaults.values())
        if self.repeatable:
            defaults += map(self.space.steadied, self.defaults.values())
        chosen = list(dict.fromkeys(map(self.space.binary_of, defaults)))
        columns = [list(map(min, guesses)) for guesses in self._guesses.values()]
        columns = [self.prior, *columns] if self.repeatable else columns
        favourites = [
            self.binaries[min(range(len(guesses)), key=guesses.__getitem__)] for guesses in columns
        ]
        extra = [binary for binary in dict.fromkeys(favourites) if binary not in chosen]
        return chosen + extra[: max(0, count - len(chosen))]

    def order(self, config: Config) -> Config | None:
        """What a configuration must share with those of the other points; None for nothing."""
        if not self.repeatable:
            return None
        return self.spec.reduction_order(self.problem, config, self.arch)

    def orders(self, evaluation: Evaluation) -> dict[Config | None, list[Config]]:
        """Whole configurations of an evaluated binary by `order`."""
        found: dict[Config | None, list[Config]] = {}
        for config in self.space.binaries[self.space.binary_of(evaluation.config)]:
            found.setdefault(self.order(config), []).append(config)
        return found

    def best_at(
        self, point: Problem, evaluation: Evaluation, order: Config | None = None
    ) -> Choice:
        """Best host knobs for an evaluated binary at a point, by prediction.

        In a repeatable cell, of those with that order: the binary must have some.
        """
        assert evaluation.status in (Status.OK, Status.DUPLICATE)
        assert self.repeatable == (order is not None)
        configs = self.orders(evaluation)[order]
        choices = (self.predict(point, config, evaluation) for config in configs)
        return min(choices, key=lambda choice: choice.prediction.time_us)

    def times_us(self, evaluation: Evaluation, order: Config | None) -> list[float]:
        """Predicted time at every point, with the best host knobs that have that order."""
        return [self.best_at(point, evaluation, order).prediction.time_us for point in self.points]

    def predict(self, point: Problem, config: Config, evaluation: Evaluation) -> Choice:
        """Prediction for one whole configuration at a point."""
        works = self.spec.work(point, config, self.arch)
        return Choice(config, self.model.predict(works, evaluation.reports))

    def objective(self, evaluation: Evaluation) -> float:
        """One number for the best predicted times at all points, microseconds."""
        floors = [self.floor_us(point) for point in self.points]
        return min(
            self._objective(self.times_us(evaluation, order), floors)
            for order in self.orders(evaluation)
        )

    def floor_us(self, point: Problem) -> float:
        """Least possible time at a point."""
        dtype = str(point.exact_axes()["dtype"])
        return self.model.floor_us(self.spec.flops(point), self.spec.min_bytes(point), dtype)

    @cached_property
    def _guesses(self) -> dict[Problem, list[list[float]]]:
        """Guessed times at four points: enough for a rank, quick for thousands.

        Of all binaries, of each with all its host knobs.
        """
        sample = self.points[:: max(1, math.ceil(len(self.points) / 4))]
        return {point: self._guess(point) for point in sample}

    def _guess(self, point: Problem) -> list[list[float]]:
        groups = [self.space.binaries[binary] for binary in self.binaries]
        candidates = [
            (self.spec.work(point, config, self.arch), config)
            for configs in groups
            for config in configs
        ]
        times = guess_all_us(self.arch, candidates).tolist()
        starts = accumulate((len(configs) for configs in groups), initial=0)
        return [times[a : a + len(configs)] for a, configs in zip(starts, groups, strict=False)]
