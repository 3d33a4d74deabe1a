"""Contenders in processes of their own, run in turns: what slows the machine slows all of them."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from runtime.bench.workload import Workload
from runtime.errors import BenchmarkError

BATCH_SIZES = (8, 16, 32)
"""Sizes of padded batches that are tried once; the fastest takes part."""


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
    """Batch size -> seconds of its trial, for padded batches."""

    @property
    def median_s(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Setup:
    """What every contender gets alike."""

    folder: Path
    dtype: str
    threads: int
    max_len: int
    kv_cache_dtype: str = "auto"
    """Of the engine alone."""
    quantization: str | None = None
    """Of the engine's weights alone."""


class Worker:
    """One contender's process; a context manager that ends it."""

    def __init__(self, name: str, setup: Setup) -> None:
        self.name = name
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
        self._ask(
            {
                "contender": name,
                "folder": str(setup.folder.resolve()),
                "dtype": setup.dtype,
                "kv_cache_dtype": setup.kv_cache_dtype,
                "quantization": setup.quantization,
                "threads": setup.threads,
                "max_len": setup.max_len,
            }
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def run(self, workload: Workload, batch_size: int) -> dict[str, Any]:
        """Serve a workload; returns seconds, CPU seconds and peak memory so far."""
        return self._ask({"what": "run", "workload": workload.to_json(), "batch_size": batch_size})

    def measure_kv(self, workload: Workload) -> dict[str, Any]:
        """Count blocks (the engine's process only)."""
        return self._ask({"what": "kv", "workload": workload.to_json()})

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
            raise BenchmarkError(f"contender {self.name!r} has failed: {last}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def take_turns(
    names: Sequence[str], setup: Setup, workload: Workload, rounds: int
) -> tuple[dict[str, Score], dict[str, Any]]:
    """Run every contender once per round; returns scores by name, and the engine's use of blocks.

    Raises:
        BenchmarkError: a contender has failed; carries its last words.
    """
    scores = {name: Score() for name in names}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, setup)) for name in names}
        for name, worker in workers.items():
            worker.run(workload.first(1), 1)  # first calls allocate and load code
            if name == "hf-batch":
                _try_sizes(worker, workload, scores[name])
        for _ in range(rounds):
            for name, worker in workers.items():
                score = scores[name]
                answer = worker.run(workload, score.batch_size or len(workload.prompts))
                score.seconds.append(answer["seconds"])
                score.cpu_seconds.append(answer["cpu_seconds"])
                score.peak_rss_bytes = answer["peak_rss_bytes"]
        return scores, workers["engine"].measure_kv(workload)


def _try_sizes(worker: Worker, workload: Workload, score: Score) -> None:
    count = len(workload.prompts)
    for size in sorted({min(size, count) for size in BATCH_SIZES}):
        score.tried_s[size] = worker.run(workload, size)["seconds"]
    score.batch_size = min(score.tried_s, key=score.tried_s.__getitem__)
