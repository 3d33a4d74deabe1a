"""How one sample is taken on a GPU: events, a flushed L2, rotating inputs, graphs.

The flush lies outside the events, as in nvbench; while it runs, the host gets ahead, so that events
of an eager launch do not time the host. A graph holds several launches over input sets of their own
(together larger than L2), and an identically flushed empty graph is subtracted.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from autotune.policy import Mode, Policy

if TYPE_CHECKING:
    import torch

Launch = Callable[[], object]

_FLUSH_BYTES = 256 << 20
"""More than any L2, MI300X's 256 MB Infinity Cache just covered."""
_GRAPH_US = 300.0
"""Work that a graph should hold, so that starting it hardly counts."""
_MOST_UNROLLED = 32
_EMPTY_SAMPLES = 20


class GpuStopwatch:
    """Takes samples on one device of this process."""

    def __init__(self, device: str, policy: Policy) -> None:
        import torch

        self._torch = torch
        self._policy = policy
        self._flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device=device)
        self.empty_us = self._time_empty_graph() if policy.mode is Mode.GRAPH else 0.0

    def prepare(self, launches: Sequence[Launch]) -> Callable[[], float]:
        """Warm up and return what takes a sample: microseconds of one launch.

        Args:
            launches: the same kernel over different input sets; all are used where a graph holds
                several, the first alone otherwise.
        """
        once_us = self._warm_up(launches)
        if self._policy.mode is Mode.EAGER:
            return lambda: self._between_events(launches[0])
        count = int(min(_MOST_UNROLLED, max(1.0, _GRAPH_US / max(once_us, 1.0))))
        unrolled = [launches[number % len(launches)] for number in range(count)]
        graph = self._capture(unrolled)
        self._between_events(graph.replay)
        return lambda: max(1e-3, self._between_events(graph.replay) - self.empty_us) / count

    def _warm_up(self, launches: Sequence[Launch]) -> float:
        """Launch all, then the first until it has run for long enough; estimate of its time."""
        for launch in launches:
            launch()
        spent = 0.0
        taken: list[float] = []
        while len(taken) < 3 or (spent < self._policy.warm_up_us and len(taken) < 100):
            taken.append(self._between_events(launches[0]))
            spent += taken[-1]
        return statistics.median(taken)

    def _between_events(self, launch: Launch) -> float:
        cuda = self._torch.cuda
        self._flush.zero_()
        start, stop = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        start.record()
        launch()
        stop.record()
        stop.synchronize()
        return 1000.0 * float(start.elapsed_time(stop))

    def _capture(self, launches: Sequence[Launch]) -> torch.cuda.CUDAGraph:
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph):
            for launch in launches:
                launch()
        return graph

    def _time_empty_graph(self) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wonders whether an empty graph is meant
            graph = self._capture([])
            taken = [self._between_events(graph.replay) for _ in range(_EMPTY_SAMPLES)]
        return statistics.median(taken)


def num_input_sets(one_set_bytes: float, l2_bytes: int) -> int:
    """Input sets that together are three times as large as L2, at most 16."""
    return max(1, min(16, -(-3 * l2_bytes // max(1, int(one_set_bytes)))))


def poison(out: Any) -> None:
    """Overwrite an output with NaN, so that what a launch does not write shows.

    Bytes are all set, which is NaN in every float that they may be part of.
    """
    out.fill_(float("nan") if out.is_floating_point() else 255)
