"""The device of a long run of races: what must be repeated elsewhere is repeated in one process.

A process for each repetition would cost more than all races together. The second one times
repetitions alone, so what they confirm was chosen by another process all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from autotune.cell import Cell
from autotune.config import Config
from autotune.gpu import Gpu
from autotune.problem import Problem
from autotune.race import Race
from autotune.records import Environment


class TwoProcesses:
    """A `measure.Device` over two processes on one GPU."""

    def __init__(self, first: Gpu, second: Gpu) -> None:
        self._first = first
        self._second = second

    def describe(self, environment: Environment) -> Environment:
        """As the first."""
        return self._first.describe(environment)

    def wrong(self, cell: Cell, config: Config) -> str | None:
        """As the first."""
        return self._first.wrong(cell, config)

    def race(
        self,
        cell: Cell,
        point: Problem,
        configs: Sequence[Config],
        *,
        peers: Sequence[str] = (),
        fresh: bool = False,
    ) -> Race:
        """In the first process, repetitions (`fresh`) in the second."""
        gpu = self._second if fresh else self._first
        return gpu.race(cell, point, configs, peers=peers)
