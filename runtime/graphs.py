"""CUDA graphs of the forward pass of steps that only decode, one for each of a few batch sizes.

In the graph: `model.forward`, from token ids to the last hidden states, over tensors that never
move. Outside: filling those tensors before (`StepInputs`), logits, sampling and prefill after. A
batch is padded up to the next captured size; the added rows write to the trash block and read only
that. Larger sizes are captured first, so that the smaller ones find room in the memory they share.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Protocol

import torch

from runtime.batch import ScheduledBatch

Forward = Callable[[int], torch.Tensor]
"""Runs a step of that many decodes over static tensors; returns hidden [num_seqs, hidden_size]."""

_SMALL = (1, 2, 4)
_MOST = 512


class Graph(Protocol):
    """A recorded forward pass."""

    def replay(self) -> None:
        """Run it over what is in its tensors now."""
        ...


class GraphDevice(Protocol):
    """What records and replays."""

    def capture(self, forward: Callable[[], torch.Tensor]) -> tuple[Graph, torch.Tensor]:
        """Record a call; returns the graph, and the tensor that every replay writes to."""
        ...


class CudaGraphDevice:
    """PyTorch's CUDA graphs, which share one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, forward: Callable[[], torch.Tensor]) -> tuple[Graph, torch.Tensor]:
        """Run twice beside the current stream, where kernels may still be compiled; then record."""
        with torch.cuda.device(self._device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    forward()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                hidden = forward()
        return graph, hidden


class DecodeGraphs:
    """Captured once, when the engine starts."""

    def __init__(self, device: GraphDevice, sizes: Iterable[int], forward: Forward) -> None:
        """Capture `forward` at each of `sizes`."""
        self.sizes = tuple(sorted(set(sizes)))
        self._graphs: dict[int, tuple[Graph, torch.Tensor]] = {}
        for size in reversed(self.sizes):
            self._graphs[size] = device.capture(lambda size=size: forward(size))  # type: ignore[misc]

    def size_for(self, batch: ScheduledBatch) -> int | None:
        """Captured size that a batch is to be padded to; None if it must run without a graph."""
        count = len(batch.sequences)
        if not count or batch.num_decodes != count:
            return None
        place = bisect_left(self.sizes, count)
        return self.sizes[place] if place < len(self.sizes) else None

    def replay(self, size: int) -> torch.Tensor:
        """Run the step in the static tensors; returns hidden [size, hidden_size].

        The next replay writes over it.
        """
        graph, hidden = self._graphs[size]
        graph.replay()
        return hidden


def default_capture_sizes(max_num_seqs: int) -> tuple[int, ...]:
    """1, 2, 4, eights to 256, sixteens to 512, and the most there can be: none is left out."""
    most = min(max_num_seqs, _MOST)
    steps = (*_SMALL, *range(8, 257, 8), *range(272, _MOST + 1, 16))
    return (*(size for size in steps if size < most), most)


def make_graph_device(device: torch.device) -> GraphDevice | None:
    """Return what captures graphs on a device, None where nothing does."""
    return CudaGraphDevice(device) if device.type == "cuda" else None
