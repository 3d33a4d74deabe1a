"""Contenders in processes of their own, run in turns: what slows the machine slows all of them.

On a GPU one process has the device's memory at a time: the engine's first, then that of all of
transformers' contenders, which share a model. There nothing else runs that could slow some alone.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from runtime.bench.setup import Setup
from runtime.bench.workload import Workload
from runtime.errors import BenchmarkError

ENGINE = "engine"
_ONE_BY_ONE, _BATCHES = "hf", "hf-batch"
_CHOOSING = ("hf-continuous",)
"""Whose first call on a GPU finds the fastest settings for the workload, and must see all of it."""


@dataclass(slots=True)
class Score:
    """What was measured of one contender, a number per round."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    """Of all threads, user and system: hardly changed by what else runs on the machine."""
    peak_rss_bytes: int = 0
    """Of the whole process since its start, loading included."""
    batch_size: int | None = None
    tried_s: dict[int, float] = field(default_factory=dict)
    """Batch size -> seconds of its trial, for padded batches; on parts of the workload what the
    whole would take."""
    num_output_tokens: int | None = None
    """In each round; None for the workload's."""
    num_prompt_tokens: int | None = None
    """The same; None where time was up and nobody knows, unless `num_output_tokens` is None."""
    peak_device_bytes: int | None = None
    """Of the last round, on a GPU."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What the contender has to say of itself."""

    @property
    def median_s(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Limits:
    """What slow contenders are spared; the defaults spare them nothing."""

    batch_sizes: Sequence[int] = (8, 16, 32)
    """Of padded batches that are tried once; the fastest takes part."""
    trial_tokens: int | None = None
    """Most output tokens of such a trial, which then has one batch; None for the workload."""
    sample: int | None = None
    """Requests that are served one by one; None for all."""
    continuous_s: float | None = None
    """Seconds after which a continuous run is cut off; None for never."""
    rounds: Mapping[str, int] = field(default_factory=dict)
    """Of contenders that take part in fewer."""


class Worker:
    """A process of one contender or of several; a context manager that ends it."""

    def __init__(self, setup: Setup, *names: str) -> None:
        self.names = names
        # A file, not a pipe: nobody reads it before the end, and a full pipe would stop the worker.
        self._errors = tempfile.TemporaryFile(  # noqa: SIM115 - closed in __exit__
            "w+", encoding="utf-8", errors="replace"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "runtime.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._ask({"contenders": list(names), "setup": setup.to_json()})

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self._process.communicate()
        self._errors.close()

    def kill(self) -> None:
        """End the process at once, whatever it does; a call that waits for it then fails."""
        self._process.kill()

    def run(
        self, name: str, workload: Workload, batch_size: int, limit_s: float | None = None
    ) -> dict[str, Any]:
        """Serve a workload; returns `Served` as JSON, CPU seconds and peak memory so far."""
        request = {"what": "run", "contender": name, "batch_size": batch_size, "limit_s": limit_s}
        return self._ask({**request, "workload": workload.to_json()})

    def measure_kv(self, workload: Workload) -> dict[str, Any]:
        """Count blocks (the engine's process only)."""
        return self._ask({"what": "kv", "contender": ENGINE, "workload": workload.to_json()})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.communicate()
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["no message"])[-1]
            self._errors.close()
            who = request.get("contender", ", ".join(self.names))
            raise BenchmarkError(f"contender {who!r} has failed: {last}")
        answer: dict[str, Any] = json.loads(line)
        return answer


Seen = Callable[[str, Score], None]
"""Is told of a contender's score whenever it has grown."""


def take_turns(
    names: Sequence[str],
    setup: Setup,
    workload: Workload,
    rounds: int,
    limits: Limits | None = None,
    seen: Seen | None = None,
) -> tuple[dict[str, Score], dict[str, Any]]:
    """Run every contender once per round; returns scores by name, and the engine's use of blocks.

    Raises:
        BenchmarkError: a contender has failed; carries its last words.
    """
    scores = {name: Score() for name in names}
    limits = limits or Limits()
    kv: dict[str, Any] = {}
    groups = [[[name] for name in names]]
    if setup.device != "cpu":
        others = [name for name in names if name != ENGINE]
        groups = [[[ENGINE]], *([[others]] if others else [])]
    for group in groups:
        with ExitStack() as stack:
            workers = {
                name: worker
                for together in group
                for worker in [stack.enter_context(Worker(setup, *together))]
                for name in together
            }
            is_gpu = setup.device != "cpu"
            _run_group(workers, workload, rounds, limits, scores, seen, is_gpu=is_gpu)
            if ENGINE in workers:
                kv = workers[ENGINE].measure_kv(workload)
    return scores, kv


def _run_group(
    workers: Mapping[str, Worker],
    workload: Workload,
    rounds: int,
    limits: Limits,
    scores: Mapping[str, Score],
    seen: Seen | None,
    *,
    is_gpu: bool,
) -> None:
    for name, worker in workers.items():
        if name not in _CHOOSING or not is_gpu:
            # First calls allocate and load code; a limit on outputs is one on them, too.
            worker.run(name, workload.first(1).cut(limits.trial_tokens), 1)
        if name == _BATCHES:
            _try_sizes(worker, workload, scores[name], limits)
    for number in range(rounds):
        for name, worker in workers.items():
            if number >= limits.rounds.get(name, rounds):
                continue
            score = scores[name]
            part = workload
            if name == _ONE_BY_ONE and limits.sample is not None:
                part = workload.first(limits.sample)
            size = score.batch_size or len(workload.prompts)
            _take(score, worker.run(name, part, size, limits.continuous_s), name)
            if seen is not None:
                seen(name, score)


def _take(score: Score, answer: Mapping[str, Any], name: str) -> None:
    """Add a round."""
    if "out_of_memory" in answer:
        raise BenchmarkError(f"contender {name!r} has failed: {answer['out_of_memory']}")
    score.seconds.append(answer["seconds"])
    score.cpu_seconds.append(answer["cpu_seconds"])
    score.peak_rss_bytes = answer["peak_rss_bytes"]
    score.peak_device_bytes = answer["peak_device_bytes"]
    score.num_output_tokens = answer["num_output_tokens"]
    score.num_prompt_tokens = answer["num_prompt_tokens"]
    score.notes = answer.get("notes", {})


def _try_sizes(worker: Worker, workload: Workload, score: Score, limits: Limits) -> None:
    """Find the fastest size that fits in memory."""
    count = len(workload.prompts)
    for size in sorted({min(size, count) for size in limits.batch_sizes}):
        part, scale = workload, 1.0
        if limits.trial_tokens is not None:
            part, scale = workload.first(size).cut(limits.trial_tokens), count / size
        answer = worker.run(_BATCHES, part, size)
        if "out_of_memory" in answer:
            score.notes = {**score.notes, f"batch of {size}": answer["out_of_memory"]}
            break
        score.tried_s[size] = scale * answer["seconds"]
    if not score.tried_s:
        raise BenchmarkError(f"contender {_BATCHES!r} has failed: no batch fits in memory")
    score.batch_size = min(score.tried_s, key=score.tried_s.__getitem__)
