"""Where a step's device work goes, in order: done at once on a CPU, queued on a GPU.

The host hands over work and goes on; a mark says when all that was handed over before it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class Mark(Protocol):
    """A point in the order of a stream."""

    def wait(self) -> None:
        """Block the host until all work before this point is done."""
        ...


class Stream(Protocol):
    """One device's work in order; copies may be done later than they are asked for."""

    device: torch.device
    is_asynchronous: bool
    """Whether the host may run ahead of the device."""

    def submit(self, work: Callable[[], None]) -> None:
        """Let the device do `work` after all that was submitted before.

        `work` only asks for copies and operations; it reads no value back, and nothing that the
        host changes before a later mark has passed.
        """
        ...

    def host_buffer(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Zeros in host memory that the device can copy from and to while the host goes on."""
        ...

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copy between a host buffer and the device, both contiguous.

        The host buffer must not be changed or read before a later mark has passed.
        """
        ...

    def send(self, values: NDArray[np.generic]) -> torch.Tensor:
        """Copy a small array to the device; the caller may let go of it, but not change it."""
        ...

    def download(self, source: torch.Tensor) -> torch.Tensor:
        """Copy to the host; the result may be read once a later mark has passed."""
        ...

    def mark(self) -> Mark:
        """Return the point after all work so far."""
        ...


class _Passed:
    def wait(self) -> None:
        """Nothing is left to wait for."""


class HostStream:
    """A CPU: everything is done when the call returns."""

    device = torch.device("cpu")
    is_asynchronous = False

    def submit(self, work: Callable[[], None]) -> None:
        """Do it."""
        work()

    def host_buffer(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Plain memory."""
        return torch.zeros(tuple(shape), dtype=dtype)

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copy."""
        target.copy_(source)

    def send(self, values: NDArray[np.generic]) -> torch.Tensor:
        """Share the memory."""
        return torch.from_numpy(values)

    def download(self, source: torch.Tensor) -> torch.Tensor:
        """It is there already."""
        return source

    def mark(self) -> Mark:
        """A point that has passed."""
        return _Passed()


class CudaStream:
    """PyTorch's current stream of a GPU, pinned host memory, events as marks.

    Pinned memory that is let go of is given out again only after the copies that use it: PyTorch's
    allocator of host memory records them.
    """

    is_asynchronous = True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def submit(self, work: Callable[[], None]) -> None:
        """Queue its kernels."""
        work()

    def host_buffer(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Pinned memory."""
        return torch.zeros(tuple(shape), dtype=dtype, pin_memory=True)

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Queue a copy from or to pinned memory."""
        target.copy_(source, non_blocking=True)

    def send(self, values: NDArray[np.generic]) -> torch.Tensor:
        """Queue a copy from fresh pinned memory."""
        return torch.from_numpy(values).pin_memory().to(self.device, non_blocking=True)

    def download(self, source: torch.Tensor) -> torch.Tensor:
        """Queue a copy to fresh pinned memory."""
        return source.to("cpu", non_blocking=True)

    def mark(self) -> Mark:
        """Record an event."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        return _EventMark(event)


class _EventMark:
    def __init__(self, event: torch.cuda.Event) -> None:
        self._event = event

    def wait(self) -> None:
        """Wait for the event."""
        self._event.synchronize()


def make_stream(device: torch.device) -> Stream:
    """Return the stream of a device."""
    if device.type == "cpu":
        return HostStream()
    return CudaStream(device)
