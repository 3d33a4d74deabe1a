"""`autotune worker --ray`: one worker per GPU of a Ray cluster."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from autotune.arch import GPUS, lookup
from autotune.errors import UsageError

ACCELERATORS: Mapping[str, str] = {
    "a100": "A100",
    "a100-40gb": "A100",
    "a10g": "A10G",
    "a40": "A40",
    "l4": "L4",
    "l40s": "L40S",
    "rtx-a6000": "RTX-A6000",
    "rtx3090": "GeForce-RTX-3090",
    "rtx6000-ada": "RTX-6000",
    "rtx4090": "GeForce-RTX-4090",
    "h100": "H100",
    "h100-pcie": "H100",
    "h200": "H200",
    "b200": "B200",
    "rtx5080": "GeForce-RTX-5080",
    "rtx-pro-6000": "RTX-PRO-6000",
    "rtx5090": "GeForce-RTX-5090",
    "mi300x": "AMD-Instinct-MI300X-OAM",
    "mi325x": "AMD-Instinct-MI325X-OAM",
}
"""GPU → Ray's name for it (`ray.util.accelerators`; RTX: what Ray calls nodes by itself).

Ray tells neither memory sizes nor PCIe boards apart: a worker that measures checks its GPU itself.
"""

_STOP_S = 20
"""A worker gives back what it holds within this time, or is killed."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster."""

    accelerator: str | None
    """Ray's name of its GPUs, None without any."""
    gpus: int
    cpus: int


@dataclass(frozen=True, slots=True)
class Launch:
    """A worker to start somewhere on a free GPU."""

    gpu: str
    accelerator: str
    jobs: int
    """Compiler processes: the node's CPUs, shared by its GPUs."""


class Cluster(Protocol):
    """What is needed of Ray."""

    def nodes(self) -> Sequence[Node]:
        """Machines that are alive."""
        ...

    def run(self, launches: Sequence[tuple[Launch, Sequence[str]]]) -> list[int]:
        """Run `autotune` with those words for each launch, all at once; exit codes."""
        ...


def plan(gpus: Sequence[str], nodes: Sequence[Node]) -> list[Launch]:
    """One launch per GPU of the kinds that are asked for.

    Raises:
        UsageError: a GPU is unknown, two of them look the same to Ray, or the cluster has none of
            one; says what it has.
    """
    wanted: dict[str, str] = {}
    for name in gpus:
        accelerator = ACCELERATORS[lookup(name).name]
        other = wanted.setdefault(accelerator, name)
        if other != name:
            raise UsageError(f"Ray calls both {other} and {name} {accelerator}: choose one of them")
    launches = [
        Launch(wanted[node.accelerator], node.accelerator, max(1, node.cpus // node.gpus))
        for node in nodes
        if node.accelerator in wanted
        for _ in range(node.gpus)
    ]
    missing = set(wanted.values()) - {launch.gpu for launch in launches}
    if missing:
        present = sorted({f"{n.gpus} x {n.accelerator}" for n in nodes if n.accelerator})
        raise UsageError(
            f"the Ray cluster has no {', '.join(sorted(missing))}; "
            f"it has {', '.join(present) or 'no GPU'}"
        )
    return launches


def words_for(launch: Launch, options: argparse.Namespace) -> list[str]:
    """Command line of one worker: the launcher's own, for one GPU."""
    words = ["worker", "--gpu", launch.gpu, "--jobs", str(launch.jobs)]
    for name, value in sorted(vars(options).items()):
        if name in _NOT_PASSED or value is None or value is False:
            continue
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
            continue
        if name == "results":  # Ray starts workers in a folder of its own
            value = Path(value).absolute()
        if isinstance(value, tuple):
            words += [option, ",".join(map(str, value))]
        else:
            for item in value if isinstance(value, list) else [value]:
                words += [option, str(item)]
    return words


_NOT_PASSED = {"ray", "gpu", "jobs", "json", "study", "command", "handler"}


def launch_all(options: argparse.Namespace, cluster: Cluster) -> int:
    """Start the workers, wait for all, and return the worst exit code."""
    if options.gpu is None:
        raise UsageError(f"--ray needs to know the GPUs: --gpu {'|'.join(GPUS)}, or several by ','")
    launches = plan(options.gpu.split(","), cluster.nodes())
    for launch in launches:
        print(f"worker for {launch.gpu} on {launch.accelerator}, {launch.jobs} jobs")
    return max(cluster.run([(launch, words_for(launch, options)) for launch in launches]))


class RayCluster:
    """A cluster by its address: "auto", "host:6379", or "local" for one on this machine."""

    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError as error:
            raise UsageError("--ray needs Ray: pip install 'pagetune[ray]'") from error
        self._ray: Any = ray
        try:
            if not ray.is_initialized():
                ray.init(address=address)
        except (ConnectionError, ValueError) as error:
            raise UsageError(f"--ray {address}: {str(error).partition(chr(10))[0]}") from error

    def nodes(self) -> Sequence[Node]:
        """See `Cluster.nodes`."""
        prefix = "accelerator_type:"
        found = []
        for node in self._ray.nodes():
            resources = node["Resources"]
            kinds = [name.removeprefix(prefix) for name in resources if name.startswith(prefix)]
            gpus = int(resources.get("GPU", 0))
            if node["Alive"]:
                kind = kinds[0] if kinds and gpus else None
                found.append(Node(kind, gpus, int(resources.get("CPU", 1))))
        return found

    def run(self, launches: Sequence[tuple[Launch, Sequence[str]]]) -> list[int]:
        """See `Cluster.run`. Ray starts a worker again if its node dies."""
        remote = self._ray.remote(run_worker)
        handles = [
            remote.options(
                num_gpus=1, num_cpus=launch.jobs, accelerator_type=launch.accelerator
            ).remote(list(words))
            for launch, words in launches
        ]
        try:
            codes: list[int] = self._ray.get(handles)
        except KeyboardInterrupt:
            for handle in handles:
                self._ray.cancel(handle)
            self._ray.wait(handles, num_returns=len(handles), timeout=_STOP_S)
            raise
        return codes


def run_worker(words: list[str]) -> int:
    """Run `autotune` in a process of its own, on the GPU that Ray made visible."""
    process = subprocess.Popen([sys.executable, "-m", "autotune", *words])
    try:
        return process.wait()
    except KeyboardInterrupt:  # cancelled
        process.terminate()
        process.wait(_STOP_S)
        raise
