"""The finite set that a search picks from, seen as Optuna parameters and as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from autotune.space import Config, Knob, KnobValue

Array = NDArray[np.float64]


class Candidates:
    """Legal configurations over `knobs`, with an optional prior (smaller is better)."""

    def __init__(
        self,
        knobs: Sequence[Knob],
        configs: Sequence[Config],
        prior: Sequence[float] | None = None,
    ) -> None:
        assert configs, "nothing legal to search"
        assert prior is None or len(prior) == len(configs)
        self.knobs = tuple(knobs)
        self.configs = tuple(configs)
        self.prior = None if prior is None else np.asarray(prior, dtype=np.float64)
        self._index = {config: index for index, config in enumerate(self.configs)}

    def __len__(self) -> int:
        return len(self.configs)

    def index(self, params: Mapping[str, Any]) -> int | None:
        """Position of the configuration with these parameter values, None if it is not here."""
        return self._index.get(Config(dict(params)))

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """One static Optuna distribution per knob; ladders of powers of two are logarithmic."""
        return {knob.name: _distribution(knob) for knob in self.knobs}

    @cached_property
    def positions(self) -> Array:
        """[num_configs, num_features]: ordered knobs as steps 0, 1, …; names as one-hot columns."""
        columns = []
        for knob in self.knobs:
            steps = np.array([knob.values.index(config[knob.name]) for config in self.configs])
            if knob.ordered:
                columns.append(steps.astype(np.float64))
            else:
                columns += [(steps == k).astype(np.float64) for k in range(len(knob.values))]
        return np.stack(columns, axis=1)

    @cached_property
    def features(self) -> Array:
        """`positions`, and the logarithm of the prior where there is one."""
        if self.prior is None:
            return self.positions
        return np.concatenate([self.positions, np.log(self.prior)[:, None]], axis=1)

    def nearest(self, params: Mapping[str, Any], allowed: NDArray[np.bool_]) -> int:
        """Index of the allowed configuration with fewest knob steps from `params`."""
        distance = np.zeros(len(self))
        for knob in self.knobs:
            if knob.name not in params:
                continue
            wanted = _position(knob, params[knob.name])
            at = np.array([knob.values.index(config[knob.name]) for config in self.configs])
            distance += np.abs(at - wanted) if knob.ordered else (at != wanted).astype(float)
        distance[~allowed] = math.inf
        return int(np.argmin(distance))

    def neighbours(self, index: int) -> list[int]:
        """Indices of the configurations one step away in one knob."""
        gap = np.abs(self.positions - self.positions[index])
        # Another name moves two one-hot columns by one each, a ladder step one column.
        ordered = np.concatenate(
            [[True] if knob.ordered else [False] * len(knob.values) for knob in self.knobs]
        )
        steps = gap[:, ordered].sum(axis=1) + gap[:, ~ordered].sum(axis=1) / 2
        return [int(i) for i in np.flatnonzero(steps == 1)]


def _distribution(knob: Knob) -> BaseDistribution:
    numbers = [v for v in knob.values if isinstance(v, int) and not isinstance(v, bool)]
    if knob.ordered and len(numbers) == len(knob.values):
        low, high = min(numbers), max(numbers)
        geometric = low >= 1 and all(v & (v - 1) == 0 for v in numbers)
        return IntDistribution(low, high, log=geometric)
    return CategoricalDistribution(knob.values)


def _position(knob: Knob, value: KnobValue) -> int:
    """Step of the value on the knob's ladder closest to `value` (a sampler may fall between)."""
    if value in knob.values:
        return knob.values.index(value)
    assert isinstance(value, int), f"{knob.name}={value!r} is not on its ladder"
    gaps = [abs(math.log2(1 + value) - math.log2(1 + int(known))) for known in knob.values]
    return gaps.index(min(gaps))
