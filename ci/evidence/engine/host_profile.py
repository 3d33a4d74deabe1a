"""Where the host's time in a step goes, by name: each phase without the phases inside it.

Methods of a running engine are wrapped, for a while; a wrapper costs under a microsecond, and what
the wrappers cost together shows as the profiled step against the same step without them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from runtime.engine import LLMEngine
from runtime.model_runner import StepInFlight
from runtime.request_state import RequestState
from runtime.sampler import PendingSamples
from runtime.stream import CudaStream

_REST = "rest of the step"


class HostProfile:
    """A context manager; `spent_s` has the sums."""

    def __init__(self, engine: LLMEngine) -> None:
        runner = engine.runner
        inputs, graphs = runner._inputs, runner._graphs
        self.spent_s: dict[str, float] = {}
        self.num_steps = 0
        self._stack: list[float] = []
        """Seconds inside of the phases inside, for each phase that is open."""
        self._places: list[tuple[Any, str, str]] = [
            (engine, "step", _REST),
            (engine.scheduler, "schedule", "schedule"),
            (inputs, "prepare", "prepare inputs"),
            (runner.sampler, "plan", "plan sampling"),
            (inputs, "upload", "upload inputs"),
            (runner, "_move", "move blocks"),
            (runner.model, "forward", "launch the model, layer by layer"),
            (runner.model, "logits", "launch the head"),
            (runner.sampler, "launch", "launch sampling"),
            (inputs, "remember", "keep tokens for the next step"),
            (PendingSamples, "download", "ask for the tokens"),
            (inputs.staging, "begin", "wait for a buffer"),
            (CudaStream, "mark", "record an event"),
            (StepInFlight, "collect", "wait for the device, and read"),
            (engine.scheduler, "finish_step", "finish the step"),
            (RequestState, "take", "append and detokenise"),
            (RequestState, "output", "build outputs"),
        ]
        if graphs is not None:
            self._places.append((graphs, "replay", "launch the graph"))
        self._saved: list[tuple[Any, str, Any, bool]] = []

    def __enter__(self) -> Self:
        for owner, attribute, name in self._places:
            own = attribute in vars(owner)
            original = vars(owner)[attribute] if own else getattr(owner, attribute)
            self._saved.append((owner, attribute, original, own))
            setattr(owner, attribute, self._wrapped(original, name))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for owner, attribute, original, own in self._saved:
            if own:
                setattr(owner, attribute, original)
            else:
                delattr(owner, attribute)

    def per_step_us(self) -> dict[str, float]:
        """Microseconds of each phase in a step, largest first."""
        found = {name: spent / self.num_steps * 1e6 for name, spent in self.spent_s.items()}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def _wrapped(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        stack, spent_s, clock = self._stack, self.spent_s, time.perf_counter

        def call(*args: Any, **options: Any) -> Any:
            stack.append(0.0)
            started = clock()
            try:
                return original(*args, **options)
            finally:
                passed = clock() - started
                inside = stack.pop()
                spent_s[name] = spent_s.get(name, 0.0) + passed - inside
                if stack:
                    stack[-1] += passed
                if name == _REST:
                    self.num_steps += 1

        return call
