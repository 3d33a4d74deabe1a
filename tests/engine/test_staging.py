"""Host buffers are never written while a copy from them is still to come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from runtime.staging import StagedArray, Staging
from runtime.stream import HostStream, Mark


@dataclass
class Lag:
    device: LaggingDevice
    position: int

    def wait(self) -> None:
        self.device.num_waits += self.device.done < self.position
        self.device.catch_up(self.position)


@dataclass
class LaggingDevice(HostStream):
    """Copies are done late, in order: some time later, or when the host waits for them."""

    queue: deque[Callable[[], object]] = field(default_factory=deque)
    issued: int = 0
    done: int = 0
    num_waits: int = 0

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        self.then(lambda: target.copy_(source))

    def then(self, work: Callable[[], object]) -> None:
        self.queue.append(work)
        self.issued += 1

    def mark(self) -> Mark:
        return Lag(self, self.issued)

    def catch_up(self, position: int) -> None:
        while self.done < position:
            self.queue.popleft()()
            self.done += 1


def run_steps(depth: int, lag: int, num_steps: int = 12) -> tuple[list[list[int]], int]:
    """What the device reads in each step, if it is `lag` steps behind; and how often we wait."""
    device = LaggingDevice()
    staging = Staging(device, depth)
    array = staging.array((5,), torch.int64)
    seen: list[list[int]] = []
    ends: list[int] = []
    for step in range(num_steps):
        frame = staging.begin()
        count = array.fill(range(step, step + 1 + step % 4))
        there = array.upload(frame, count)
        device.then(lambda there=there: seen.append(there.tolist()))
        staging.guard(device.mark())
        ends.append(device.issued)
        if step >= lag:
            device.catch_up(ends[step - lag])
    device.catch_up(device.issued)
    return seen, device.num_waits


EXPECTED = [list(range(step, step + 1 + step % 4)) for step in range(12)]


@pytest.mark.parametrize("lag", range(4))
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_device_sees_every_step_as_it_was_written(depth: int, lag: int) -> None:
    seen, num_waits = run_steps(depth, lag)
    assert seen == EXPECTED
    assert (num_waits == 0) == (lag < depth), "it waits if there are too few buffers, only then"


def one_buffer_for_all(patch: pytest.MonkeyPatch) -> None:
    original = StagedArray.__init__

    def init(self: StagedArray, staging: Staging, target: torch.Tensor) -> None:
        original(self, staging, target)
        self._buffers = [self._buffers[0]] * staging.depth
        self._views = [self._views[0]] * staging.depth

    patch.setattr(StagedArray, "__init__", init)


def guard_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Staging, "guard", lambda self, mark: None)


@pytest.mark.parametrize(
    ("plant", "depth", "lag"), [(one_buffer_for_all, 2, 1), (guard_nothing, 2, 2)]
)
def test_a_planted_race_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None],
    depth: int,
    lag: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    assert run_steps(depth, lag)[0] != EXPECTED
