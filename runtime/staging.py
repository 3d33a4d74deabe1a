"""Host buffers that a step's integers are written into, and their twins on the device.

Each array has as many host buffers as steps may be in flight, filled in turn, so that the host
writes step k+1 while the device may still be copying step k. A buffer is written again only after
the mark of the step that used it last: with fewer buffers the host waits, but never corrupts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.stream import Mark, Stream


class StagedArray:
    """One array of fixed length; only what was filled of it is copied."""

    def __init__(self, staging: Staging, target: torch.Tensor) -> None:
        self._staging = staging
        self.device = target
        stream = staging.stream
        self._buffers = [
            stream.host_buffer(target.shape, target.dtype) for _ in range(staging.depth)
        ]
        self._views: list[NDArray[Any]] = [buffer.numpy() for buffer in self._buffers]

    @property
    def host(self) -> NDArray[Any]:
        """Buffer of the frame that is being filled."""
        return self._views[self._staging.frame]

    def fill(self, values: Any) -> int:
        """Write `values` at the start of the frame that is being filled; returns their number."""
        found = np.asarray(values, dtype=self.host.dtype)
        self.host[: len(found)] = found
        return len(found)

    def upload(self, frame: int, count: int) -> torch.Tensor:
        """Copy the first `count` entries of a frame; returns them on the device."""
        target = self.device[:count]
        if count:
            self._staging.stream.copy(self._buffers[frame][:count], target)
        return target


class Staging:
    """All arrays of a runner, which change their buffers together, once a step."""

    def __init__(self, stream: Stream, depth: int = 2) -> None:
        self.stream = stream
        self.depth = depth
        self.frame = 0
        self._marks: list[Mark | None] = [None] * depth

    def array(self, shape: tuple[int, ...], dtype: torch.dtype) -> StagedArray:
        """Make an array, zero at first."""
        target = torch.zeros(shape, dtype=dtype, device=self.stream.device)
        return StagedArray(self, target)

    def array_for(self, target: torch.Tensor) -> StagedArray:
        """Make an array whose twin is given."""
        return StagedArray(self, target)

    def begin(self) -> int:
        """Go on to the next frame once the device has read what was in it; returns its number."""
        self.frame = (self.frame + 1) % self.depth
        mark = self._marks[self.frame]
        if mark is not None:
            mark.wait()
            self._marks[self.frame] = None
        return self.frame

    def guard(self, mark: Mark) -> None:
        """Keep the current frame as it is until `mark` has passed."""
        self._marks[self.frame] = mark
