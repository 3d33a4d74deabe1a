"""The GPU of this machine, or a simulated one, driven through a worker process that may die."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from autotune.arch import GpuArch
from autotune.cell import Cell
from autotune.config import Config
from autotune.device import LocalDevice
from autotune.paths import child_environment
from autotune.policy import Policy, mode_for
from autotune.pool import Outcome, Reply, WorkerPool
from autotune.problem import Problem
from autotune.race import Race
from autotune.race_log import RaceLog
from autotune.records import Environment, Status
from autotune.render import TemplateFolder
from autotune.simulated import PREFIX, SimulatedDevice

_ENVIRONMENT = {"TRITON_DISABLE_LINE_INFO": "1"}
"""As the cross-compiler does it, whose binaries are then found in Triton's cache."""

_START_TIMEOUT_S = 180.0
"""For a process that imports torch and opens the device, on a busy machine."""


@dataclasses.dataclass(frozen=True, slots=True)
class Swept:
    """One configuration of an exhaustive recording."""

    status: Status
    reason: str | None = None
    samples_us: tuple[float, ...] = ()


class Gpu:
    """One worker process at a time; a hang costs the timeout and that process."""

    def __init__(
        self,
        local: LocalDevice,
        templates: TemplateFolder,
        cache: Path,
        log: RaceLog,
        policy: Policy | None = None,
        device: str = "cuda",
    ) -> None:
        self._local = local
        self._templates = templates
        self._cache = cache
        self._log = log
        self._policy = policy or Policy()
        self._device = device
        self._pool = self._new_pool()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.close()

    def describe(self, environment: Environment) -> Environment:
        """Add torch, driver and device name."""
        return dataclasses.replace(
            environment,
            torch=importlib.metadata.version("torch"),
            driver=self._local.driver,
            device=self._local.name,
        )

    def wrong(self, cell: Cell, config: Config) -> str | None:
        """Check on sizes of the kernel's hard list, with poisoned memory."""
        request = self._request("check", cell, _small(cell))
        request |= {"path": self._path(cell, config), "config": dict(config)}
        reply = self._ask(self._pool, request, self._policy.check_timeout_s)
        if reply.outcome is not Outcome.ANSWERED:
            reason: str | None = f"{reply.outcome.value}: {reply.detail}"
        else:
            reason = reply.answer.get("reason")
        self._log.add({"what": "check", **_told(request), "reason": reason})
        return reason

    def race(
        self,
        cell: Cell,
        point: Problem,
        configs: Sequence[Config],
        *,
        peers: Sequence[str] = (),
        fresh: bool = False,
    ) -> Race:
        """Time in one process, interleaved; peers stand behind the configurations.

        If the process dies, each entrant is raced alone to find out whose fault it was, and the
        others are raced again. `fresh` uses a process of its own.
        """
        pool = self._new_pool() if fresh else self._pool
        try:
            found = self._race(pool, cell, point, configs, peers, fresh)
            if found is None and len(configs) + len(peers) > 1:
                found = self._race_survivors(pool, cell, point, configs, peers, fresh)
        finally:
            if fresh:
                pool.close()
        return found or Race.failed(len(configs) + len(peers), "the worker process died")

    def sweep(self, cell: Cell, point: Problem, configs: Sequence[Config]) -> list[Swept]:
        """Check and time many configurations, one after the other, failures included."""
        policy = dataclasses.replace(self._policy.quick(), mode=mode_for(point.nearest_axes()))
        small = _small(cell)
        request = self._request("sweep", cell, point) | {
            "policy": policy.to_json(),
            "check_problem": {**small.exact_axes(), **small.nearest_axes()},
            "paths": [self._path(cell, config) for config in configs],
            "configs": [dict(config) for config in configs],
        }
        timeout_s = policy.check_timeout_s / 2 + 0.5 * len(configs)
        reply = self._ask(self._pool, request, timeout_s)
        if reply.outcome is Outcome.ANSWERED and reply.answer["status"] == Status.OK:
            rows = [
                Swept(Status(row["status"]), row["reason"], tuple(row["samples_us"]))
                for row in reply.answer["rows"]
            ]
            self._log.add({"what": "sweep", **_told(request), "rows": reply.answer["rows"]})
            # What follows a failed launch was not tried: its context may be poisoned.
            rest = configs[len(rows) :]
            return rows + (self.sweep(cell, point, rest) if rest else [])
        if len(configs) == 1:
            status, reason = _fate(reply)
            self._log.add({"what": "sweep", **_told(request), "status": status, "reason": reason})
            return [Swept(status, reason)]
        middle = len(configs) // 2
        return [
            swept
            for half in (configs[:middle], configs[middle:])
            for swept in self.sweep(cell, point, half)
        ]

    def ceilings(self) -> Mapping[str, Any]:
        """Measured copy bandwidth and matrix rate; empty if they could not be measured."""
        request = {"op": "ceilings", "device": self._device, "nvml_index": self._local.index}
        reply = self._ask(self._pool, request, self._policy.race_timeout_s)
        if reply.outcome is not Outcome.ANSWERED or reply.answer["status"] != Status.OK:
            return {}
        self._log.add({"what": "ceilings", **reply.answer})
        return reply.answer

    def _race(
        self,
        pool: WorkerPool,
        cell: Cell,
        point: Problem,
        configs: Sequence[Config],
        peers: Sequence[str],
        fresh: bool,
    ) -> Race | None:
        """The race, None if the process did not come back with one."""
        policy = dataclasses.replace(self._policy, mode=mode_for(point.nearest_axes()))
        request = self._request("race", cell, point) | {
            "policy": policy.to_json(),
            "paths": [self._path(cell, config) for config in configs],
            "configs": [dict(config) for config in configs],
            "peers": list(peers),
            "again": int(fresh),
        }
        reply = self._ask(pool, request, policy.race_timeout_s)
        sound = reply.outcome is Outcome.ANSWERED and reply.answer["status"] == Status.OK
        result = reply.answer if sound else {"fault": _fate(reply)[1]}
        self._log.add({"what": "race", "fresh": fresh, **_told(request), **result})
        return Race.from_json(reply.answer) if sound else None

    def _race_survivors(
        self,
        pool: WorkerPool,
        cell: Cell,
        point: Problem,
        configs: Sequence[Config],
        peers: Sequence[str],
        fresh: bool,
    ) -> Race | None:
        kept, faults = [], list[str | None]()
        for config in configs:
            alone = self._race(pool, cell, point, [config], (), fresh)
            fault = "hung or crashed when timed" if alone is None else alone.faults[0]
            faults.append(fault)
            kept += [config] if fault is None else []
        named = []
        for peer in peers:
            alone = self._race(pool, cell, point, kept[:1], [peer], fresh)
            fault = "hung or crashed when timed" if alone is None else alone.faults[-1]
            faults.append(fault)
            named += [peer] if fault is None else []
        if not kept and not named:
            return None
        found = self._race(pool, cell, point, kept, named, fresh)
        return None if found is None else found.with_faults(faults)

    def _new_pool(self) -> WorkerPool:
        return WorkerPool(1, child_environment(**_ENVIRONMENT))

    def _ask(self, pool: WorkerPool, request: Mapping[str, Any], timeout_s: float) -> Reply:
        """The answer to one request; a new process starts before the clock does."""
        hello = {"op": "hello", "device": self._device}
        ((_, reply),) = pool.run([hello], _START_TIMEOUT_S)
        if reply.outcome is not Outcome.ANSWERED:
            return reply
        ((_, reply),) = pool.run([request], timeout_s)
        return reply

    def _request(self, operation: str, cell: Cell, problem: Problem) -> dict[str, Any]:
        return {
            "op": operation,
            "kernel": cell.spec.name,
            "problem": {**problem.exact_axes(), **problem.nearest_axes()},
            "seed": 0,
            "device": self._device,
            "nvml_index": self._local.index,
        }

    def _path(self, cell: Cell, config: Config) -> str:
        return str(self._templates.render(cell.spec, cell.problem, config).write(self._cache))


def simulated(
    text: str, templates: TemplateFolder, cache: Path, log: RaceLog, timeout_s: float = 30.0
) -> Gpu:
    """A simulated GPU, `h200` or `h200?wrong=0.1&...`, behind a real worker process.

    Raises:
        UnknownChoiceError: no such GPU or trait.
        UsageError: a trait is not a number.
    """
    name = text if text.startswith(PREFIX) else PREFIX + text
    local = simulated_device(SimulatedDevice.parse(name).arch)
    policy = Policy(pause_s=0.0, check_timeout_s=timeout_s, race_timeout_s=timeout_s)
    return Gpu(local, templates, cache, log, policy, name)


def simulated_device(arch: GpuArch) -> LocalDevice:
    """How a simulated GPU shows itself: never under the name of a real one."""
    return LocalDevice(0, f"simulated {arch.title}", "simulated", None, None, False, arch)


def _small(cell: Cell) -> Problem:
    """The cell at the largest of the kernel's hard sizes (some of those have no token at all)."""
    known = (problem.nearest_axes() for problem in cell.spec.hard_problems())
    sizes = max(known, key=lambda axes: math.prod(axes.values()))
    return cell.problem.at(**sizes)


def _told(request: Mapping[str, Any]) -> dict[str, Any]:
    """What of a request belongs beside its answer."""
    names = ("kernel", "problem", "device", "policy", "config", "configs", "peers")
    return {name: request[name] for name in names if name in request}


def _fate(reply: Reply) -> tuple[Status, str]:
    if reply.outcome is Outcome.TIMED_OUT:
        return Status.BENCH_TIMEOUT, reply.detail
    if reply.outcome is Outcome.CRASHED:
        return Status.CRASHED, reply.detail or "the process died"
    return Status(reply.answer["status"]), reply.answer.get("reason") or "no reason given"
