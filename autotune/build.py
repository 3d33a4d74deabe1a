"""From configurations to judged evaluations: render, look up, compile in parallel, reject."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from autotune.arch import GpuArch
from autotune.compiler.toolchain import environment
from autotune.config import Config
from autotune.judge import find_fault
from autotune.kernels.spec import KernelSpec
from autotune.pool import Outcome, Reply, Request, WorkerPool
from autotune.problem import Problem
from autotune.records import CompileReport, Evaluation, Status
from autotune.render import TemplateFolder
from autotune.report_cache import ReportCache

COMPILE_TIMEOUT_S = 60.0
"""Spilling candidates take longest, and are rejected anyway."""


class Builder:
    """Compiles candidates for one GPU; the same source is compiled once, ever."""

    def __init__(
        self, arch: GpuArch, templates: TemplateFolder, cache: Path, pool: WorkerPool
    ) -> None:
        self.arch = arch
        self.templates = templates
        self.environment = environment(arch)
        self.compiled = 0
        """Compilations done by this object, cache hits not counted."""
        self._cache_folder = cache
        self._cache = ReportCache(cache, arch, self.environment)
        self._pool = pool

    def evaluate(
        self,
        spec: KernelSpec[Any],
        problem: Problem,
        configs: Sequence[Config],
        on_done: Callable[[], None] = lambda: None,
    ) -> list[Evaluation]:
        """Compile and judge whole configurations of one cell; results in the order given.

        `on_done` is called as each becomes known.
        """
        rendered = [self.templates.render(spec, problem, config) for config in configs]
        found = [self._cache.get(r, c) for r, c in zip(rendered, configs, strict=True)]
        missing = [index for index, evaluation in enumerate(found) if evaluation is None]
        for _ in range(len(configs) - len(missing)):
            on_done()
        requests = [
            {
                "op": "compile",
                "gpu": self.arch.name,
                "path": str(rendered[index].write(self._cache_folder)),
            }
            for index in missing
        ]
        for at, reply in self._answers(requests):
            index = missing[at]
            evaluation = _from_reply(configs[index], reply.outcome, reply.answer, reply.detail)
            self._cache.put(rendered[index], evaluation)
            found[index] = evaluation
            self.compiled += 1
            on_done()
        return [
            self._judged(spec, problem, evaluation)
            for evaluation in found
            if evaluation is not None
        ]

    def _answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """Answer all, asking twice where a worker died.

        Who kills a worker from outside (an operator, the kernel short of memory) says nothing about
        the candidate, and the same seed has to give the same results.
        """
        lost: list[int] = []
        for at, reply in self._pool.run(requests, COMPILE_TIMEOUT_S):
            if reply.outcome is Outcome.CRASHED:
                lost.append(at)
            else:
                yield at, reply
        again = self._pool.run([requests[at] for at in lost], COMPILE_TIMEOUT_S)
        for number, reply in again:
            yield lost[number], reply

    def _judged(
        self, spec: KernelSpec[Any], problem: Problem, evaluation: Evaluation
    ) -> Evaluation:
        if evaluation.status is not Status.OK:
            return evaluation
        expected = spec.expected_mma(problem, evaluation.config, self.arch)
        fault = find_fault(evaluation.reports, self.arch, expected)
        if fault is None:
            return evaluation
        status, reason = fault
        return Evaluation(evaluation.config, status, reason, evaluation.reports)


def _from_reply(config: Config, outcome: Outcome, answer: Any, detail: str) -> Evaluation:
    if outcome is Outcome.TIMED_OUT:
        return Evaluation(config, Status.COMPILE_TIMEOUT, f"compiler: {detail}")
    if outcome is Outcome.CRASHED:
        return Evaluation(config, Status.CRASHED, f"compiler process died twice: {detail}")
    if answer["status"] != Status.OK:
        return Evaluation(config, Status(answer["status"]), answer["reason"])
    reports = tuple(CompileReport.from_json(item) for item in answer["reports"])
    return Evaluation(config, Status.OK, reports=reports)
