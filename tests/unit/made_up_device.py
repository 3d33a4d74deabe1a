"""A device whose times are functions: for tests of what is made of a race."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from autotune.cell import Cell
from autotune.config import Config
from autotune.policy import Mode
from autotune.problem import Problem
from autotune.race import Race
from autotune.records import Environment


class MadeUpDevice:
    """Times by a function of the configuration, with 1 % of noise; refuses what it is told to."""

    def __init__(
        self,
        time_us: Callable[[Config], float],
        wrong: Callable[[Config], bool] = lambda config: False,
        broken: bool = False,
    ) -> None:
        self._time_us = time_us
        self._wrong = wrong
        self._broken = broken
        self._rng = np.random.default_rng(7)
        self.later_us: Callable[[Config], float] | None = None
        """Times in a fresh process, if others."""
        self.peer_us: Callable[[Problem, str, bool], float | None] = lambda *_: None
        """Times of peers at a point, in a fresh process or not; None for one that fails."""
        self.duels: list[tuple[Problem, tuple[Config, ...], tuple[str, ...]]] = []
        """Races against peers that were not in a fresh process."""
        self.checked: list[Config] = []
        self.raced: list[tuple[Problem, tuple[Config, ...]]] = []
        self.repeated: list[tuple[Problem, tuple[Config, ...]]] = []

    def describe(self, environment: Environment) -> Environment:
        return environment

    def wrong(self, cell: Cell, config: Config) -> str | None:
        self.checked.append(config)
        return "gives nonsense" if self._wrong(config) else None

    def race(
        self,
        cell: Cell,
        point: Problem,
        configs: Sequence[Config],
        *,
        peers: Sequence[str] = (),
        fresh: bool = False,
    ) -> Race:
        if peers and not fresh:
            self.duels.append((point, tuple(configs), tuple(peers)))
        elif not peers:
            (self.repeated if fresh else self.raced).append((point, tuple(configs)))
        if self._broken:
            return Race.failed(len(configs) + len(peers), "broken")
        time_us = self.later_us if fresh and self.later_us is not None else self._time_us
        columns = [time_us(c) * (1 + self.noise()) for c in configs]
        theirs = [self.peer_us(point, peer, fresh) for peer in peers]
        columns += [us * (1 + self.noise()) for us in theirs if us is not None]
        faults = [None] * len(configs) + [None if us is not None else "no" for us in theirs]
        return ran(columns).with_faults(faults)

    def noise(self) -> np.typing.NDArray[np.float64]:
        return 0.01 * self._rng.standard_normal(40)


def ran(columns: Sequence[np.typing.NDArray[np.float64]]) -> Race:
    """A race in which nothing went wrong."""
    samples = tuple(tuple(map(float, column)) for column in columns)
    return Race(Mode.GRAPH, samples, (None,) * len(samples), (), (), "rounds")
