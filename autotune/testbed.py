"""One problem ready to be timed: input sets, the right answer, and the check under the clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from autotune.correctness import complaint, errors_of
from autotune.errors import CandidateError
from autotune.kernels.spec import Inputs, KernelSpec, Tolerance
from autotune.problem import Problem
from autotune.stopwatch import poison

if TYPE_CHECKING:
    import torch

Launch = Callable[[], Any]
"""Starts the work and returns the output tensor."""
MakeLaunch = Callable[[Inputs], Launch]
"""Whatever may be done ahead, done; the rest is in the launch."""

_REFERENCE_BYTES = 4 << 30
"""Problems that move more are compared with their first entrant: fp64 copies would not fit."""


class Stopwatch(Protocol):
    """Something that times launches; see `stopwatch`."""

    def prepare(self, launches: list[Launch]) -> Callable[[], float]:
        """Warm up; what takes one sample in microseconds."""
        ...


class Testbed:
    """Checks each entrant's output on the inputs that it is timed on, alone and under the clock."""

    __test__ = False  # no test of pytest's, whatever its name

    def __init__(
        self,
        spec: KernelSpec[Any],
        problem: Problem,
        device: str,
        watch: Stopwatch,
        sets: int,
        seed: int = 0,
    ) -> None:
        self._watch = watch
        self._spec = spec
        self._problem = problem
        self._tolerance = spec.tolerance(problem)
        self._sets = [spec.bench_inputs(problem, seed + number, device) for number in range(sets)]
        self._reference: torch.Tensor | None = None
        if spec.min_bytes(problem) <= _REFERENCE_BYTES:
            self._reference = spec.reference(problem, self._sets[0])

    def stopwatch(self, make_launch: MakeLaunch, slack: float = 1.0) -> Callable[[], float]:
        """Check an entrant and return what takes a sample of it.

        Args:
            make_launch: the entrant, for given inputs.
            slack: factor on the kernel's tolerance: others round where ours do not.

        Raises:
            CandidateError: its output is wrong at this size, alone or as it is timed.
        """
        launches = [_Keeping(make_launch(inputs)) for inputs in self._sets]
        launches[0]()
        self._compare(launches[0].out, slack, "")
        sample = self._watch.prepare(list(launches))
        poison(launches[0].out)
        sample()
        self._compare(launches[0].out, slack, " as it is timed")
        return sample

    def _compare(self, out: torch.Tensor, slack: float, when: str) -> None:
        out = self._spec.values(self._problem, self._sets[0], out)
        if self._reference is None:
            self._reference = out.double()
            return
        allowed = Tolerance(slack * self._tolerance.relative, slack * self._tolerance.elementwise)
        fault = complaint(errors_of(out, self._reference), allowed)
        if fault is not None:
            raise CandidateError(f"wrong at this size{when}: {fault}")


class _Keeping:
    """A launch that keeps hold of its output: a captured one is written again at each replay."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self.out: Any = None

    def __call__(self) -> Any:
        self.out = self._launch()
        return self.out
