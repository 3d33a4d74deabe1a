"""The finite set that a search picks from, seen as Optuna parameters and as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from autotune.config import Config, KnobValue
from autotune.knob import Knob

Array = NDArray[np.float64]

_MOST_HALVINGS = 8
"""A product that 256 divides is as round as hardware cares for."""


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
    def steps(self) -> NDArray[np.int64]:
        """[num_configs, num_knobs]: position of each knob's value among its values."""
        numbers = [{value: i for i, value in enumerate(knob.values)} for knob in self.knobs]
        names = [knob.name for knob in self.knobs]
        rows = [[known[c[name]] for known, name in zip(numbers, names, strict=True)]
                for c in self.configs]  # fmt: skip
        return np.array(rows, dtype=np.int64)

    @cached_property
    def positions(self) -> Array:
        """[num_configs, num_features]: ordered knobs as steps 0, 1, …; names as one-hot columns."""
        columns = []
        for knob, steps in zip(self.knobs, self.steps.T, strict=True):
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

    @cached_property
    def descriptors(self) -> NDArray[np.float32]:
        """[num_configs, num_descriptors]: what a tree may split on, one column per idea.

        Every value of every knob as a switch; of numbers also their place, their logarithm and how
        often two divides them (rows of 48 are not rows of 64); of pairs of numbers the products and
        ratios (threads of a block, elements of a tile), and how often two divides the product
        (whole warps); the product of all; the prior. Columns that never change are left out.
        """
        columns: list[Array] = []
        logs, halvings = [], []
        for knob, steps in zip(self.knobs, self.steps.T, strict=True):
            columns += [(steps == k).astype(np.float64) for k in range(len(knob.values))]
            if not knob.ordered:
                continue
            columns.append(steps.astype(np.float64))
            numbers = [value for value in knob.values if isinstance(value, int)]
            if len(numbers) == len(knob.values) > 2:  # two values are a switch: no new idea
                logs.append(np.log2([max(n, 0.5) for n in numbers])[steps])
                twos = [(n & -n).bit_length() - 1 if n > 0 else 0 for n in numbers]
                halvings.append(np.array(twos, dtype=np.float64)[steps])
        columns += logs + halvings
        for i, j in combinations(range(len(logs)), 2):
            columns += [logs[i] + logs[j], logs[i] - logs[j]]
            columns.append(np.minimum(halvings[i] + halvings[j], _MOST_HALVINGS))
        if len(logs) > 2:
            columns.append(np.sum(logs, axis=0))
        if self.prior is not None:
            columns.append(np.log(self.prior))
        table = np.stack(columns, axis=1).astype(np.float32)
        return np.ascontiguousarray(table[:, (table != table[0]).any(axis=0)])

    def nearest(self, params: Mapping[str, Any], allowed: NDArray[np.bool_]) -> int:
        """Index of the allowed configuration with fewest knob steps from `params`."""
        distance = np.zeros(len(self))
        for knob, at in zip(self.knobs, self.steps.T, strict=True):
            if knob.name not in params:
                continue
            wanted = _position(knob, params[knob.name])
            distance += np.abs(at - wanted) if knob.ordered else (at != wanted).astype(float)
        distance[~allowed] = math.inf
        return int(np.argmin(distance))

    def similar(self, index: int) -> NDArray[np.intp]:
        """Indices of the configurations that differ in one knob, by however many steps."""
        return np.flatnonzero((self.steps != self.steps[index]).sum(axis=1) == 1)

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
