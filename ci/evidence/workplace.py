"""What every stage works with: the device, a compiler, a clock, a place to write."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gzip
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from autotune.arch import GpuArch
from autotune.build import Builder
from autotune.cell import Cell
from autotune.deadline import Deadline
from autotune.device import local_devices
from autotune.device_clocks import fixed_facts
from autotune.errors import NoDeviceError
from autotune.gpu import Gpu, simulated, simulated_device
from autotune.kernels import load_kernel
from autotune.paths import cache_dir, templates_dir
from autotune.policy import Policy
from autotune.pool import WorkerPool
from autotune.race_log import RaceLog
from autotune.render import TemplateFolder
from autotune.simulated import SimulatedDevice


class Workplace:
    """One stage's tools; leaves compressed raw samples behind.

    `ahead` is one thread that lives as long as the stage: what it compiles with, children that die
    with the thread that started them, can be used from it and from the stage itself.
    """

    def __init__(self, options: argparse.Namespace, stage: str) -> None:
        self.out: Path = options.out
        self.simulate: str | None = options.simulate
        self.jobs: int = options.jobs
        self.stage = stage
        self.results: Path | None = options.results
        self.budget_s: float = options.budget
        self.deadline = Deadline(options.budget)
        self.templates = TemplateFolder(templates_dir())
        self._stack = contextlib.ExitStack()
        self._raw = self.out / f"{stage}.raw"
        self.folder = self.out / stage
        """For files; leaves as one archive."""

    @property
    def rehearsal(self) -> bool:
        """Whether nothing here is a measurement."""
        return self.simulate is not None

    def __enter__(self) -> Self:
        self.out.mkdir(parents=True, exist_ok=True)
        self._raw.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.ahead = self._stack.enter_context(ThreadPoolExecutor(1))
        if self.simulate is not None:
            self.local = simulated_device(SimulatedDevice.parse(self.simulate).arch)
        else:
            found = next((d for d in local_devices() if d.arch is not None), None)
            if found is None:
                raise NoDeviceError("no known GPU in this machine; rehearse with --simulate h200")
            self.local = found
        assert self.local.arch is not None
        self.arch: GpuArch = self.local.arch
        self.device = self._stack.enter_context(self.another_gpu())
        self.builder = Builder(
            self.arch,
            self.templates,
            cache_dir(),
            self._stack.enter_context(WorkerPool(self.jobs)),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
        if self.folder.is_dir():
            self._pack()
        elif self._raw.is_file():
            with self._raw.open("rb") as raw, gzip.open(f"{self._raw}.gz", "wb") as packed:
                shutil.copyfileobj(raw, packed)
            self._raw.unlink()

    def keep(self, document: Mapping[str, Any]) -> None:
        """Write what a stage has found so far, lest its machine goes away."""
        path = self.out / f"{self.stage}.json"
        path.write_text(json.dumps({**document, "unfinished": True}, indent=1) + "\n")

    def another_gpu(self) -> Gpu:
        """A process of its own on the device; enter it before use."""
        log = RaceLog(self._raw)
        if self.simulate is not None:
            return simulated(self.simulate, self.templates, cache_dir(), log)
        return Gpu(self.local, self.templates, cache_dir(), log, Policy(cap_s=1.5, most_rounds=60))

    def _pack(self) -> None:
        """Turn the folder, raw samples included, into one file: machines hand back few files."""
        if self._raw.is_file():
            shutil.move(self._raw, self.folder / "raw.jsonl")
        shutil.make_archive(str(self.folder), "gztar", self.folder)
        shutil.rmtree(self.folder)

    def cell(self, kernel: str, axes: str, *sizes: dict[str, int], variants: bool = False) -> Cell:
        """A cell of a kernel, judged at these sizes."""
        spec = load_kernel(kernel)
        found = Cell(spec, self.arch, spec.problem_type.parse(axes), variants=variants)
        if sizes:
            found.points = tuple(found.problem.at(**size) for size in sizes)
        return found

    def environment(self) -> dict[str, Any]:
        """Versions, device, host and commit."""
        told = self.device.describe(self.builder.environment)
        return {
            **dataclasses.asdict(told),
            "simulated": self.simulate,
            "python": platform.python_version(),
            "kernel": platform.release(),
            "cpus": os.cpu_count(),
            "commit": _commit(),
            **({} if self.rehearsal else fixed_facts(self.local.index)),
        }


def _commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
