"""Worker processes that may hang or crash without taking the run along."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import IO, Any, Self

from autotune.paths import child_environment

Request = Mapping[str, Any]


class Outcome(StrEnum):
    """How a request ended, whatever its answer says."""

    ANSWERED = "answered"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class Reply:
    """The worker's answer, or why there is none."""

    outcome: Outcome
    answer: Mapping[str, Any] = field(default_factory=dict)
    detail: str = ""
    """Last line that a dead worker wrote to its error stream."""


class WorkerPool:
    """A fixed number of `autotune.worker` processes, each in a process group of its own.

    A worker that passes the timeout is killed with all it started; one that dies is replaced.
    Workers start when first needed and are reused, since importing the compiler takes a second.
    """

    def __init__(self, size: int, environment: Mapping[str, str] | None = None) -> None:
        assert size >= 1, "a pool needs a worker"
        self._size = size
        self._environment = dict(environment or child_environment())
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill all workers and wait for them."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def run(self, requests: Iterable[Request], timeout_s: float) -> Iterator[tuple[int, Reply]]:
        """Answer all requests in parallel; yields (index, reply) as they come, in any order.

        A request is asked for when a worker is free for it, so they may be made on the way.
        """
        pending = enumerate(requests)
        busy: dict[_Worker, int] = {}
        try:
            yield from self._run(pending, busy, timeout_s)
        finally:  # a caller who stops early must not leave an answer for the next one
            for worker in busy:
                self._discard(worker)

    def _run(
        self, pending: Iterator[tuple[int, Request]], busy: dict[_Worker, int], timeout_s: float
    ) -> Iterator[tuple[int, Reply]]:
        with selectors.DefaultSelector() as selector:
            while True:
                for index, request in itertools.islice(pending, self._size - len(busy)):
                    worker = self._idle_worker(busy)
                    worker.send(request, timeout_s)
                    busy[worker] = index
                    selector.register(worker.stdout, selectors.EVENT_READ, worker)
                if not busy:
                    return
                wait_s = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
                ready = [key.data for key, _ in selector.select(wait_s)]
                now = time.monotonic()
                for worker in ready or [w for w in busy if w.deadline <= now]:
                    selector.unregister(worker.stdout)
                    reply = worker.receive() if ready else worker.time_out(timeout_s)
                    if reply.outcome is not Outcome.ANSWERED or reply.answer.get("poisoned"):
                        self._discard(worker)
                    yield busy.pop(worker), reply

    def _idle_worker(self, busy: Mapping[_Worker, int]) -> _Worker:
        for worker in [known for known in self._workers if known not in busy]:
            if worker.alive:
                return worker
            self._discard(worker)  # its death is not the next request's fault
        worker = _Worker(self._environment)
        self._workers.append(worker)
        return worker

    def _discard(self, worker: _Worker) -> None:
        worker.kill()
        if worker in self._workers:
            self._workers.remove(worker)


class _Worker:
    """One process and the request that it is on."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._errors = tempfile.TemporaryFile(mode="w+b")  # noqa: SIM115  (closed by `kill`)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "autotune.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=dict(environment),
            text=True,
            start_new_session=True,
        )
        self.deadline = 0.0

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def stdout(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def send(self, request: Request, timeout_s: float) -> None:
        assert self._process.stdin is not None
        self.deadline = time.monotonic() + timeout_s
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.deadline = time.monotonic()  # died while idle: `receive` finds end of file

    def receive(self) -> Reply:
        line = self.stdout.readline()
        if line.endswith("\n"):
            return Reply(Outcome.ANSWERED, json.loads(line))
        status = self._process.wait()
        return Reply(Outcome.CRASHED, detail=self._last_words() or f"exit status {status}")

    def time_out(self, timeout_s: float) -> Reply:
        return Reply(Outcome.TIMED_OUT, detail=f"no answer within {timeout_s:g} s")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # already gone
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # an unsent request for a dead worker
                stream.close()

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""
