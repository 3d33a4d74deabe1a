"""How many threads to compute with on a CPU."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP_2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_1 = Path("/sys/fs/cgroup/cpu")
_CPUS = Path("/sys/devices/system/cpu")


def default_threads() -> int:
    """Physical cores that this process may use, within its cgroup's share of time.

    `$OMP_NUM_THREADS` comes first. Two threads of one core share its arithmetic units, so more
    threads than cores only add waiting.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    cores = _physical_cores()
    quota = cgroup_cpus()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cgroup_cpus(second: Path = _CGROUP_2, first: Path = _CGROUP_1) -> float | None:
    """CPUs' worth of time that the cgroup grants, None where it does not say."""
    try:
        if second.is_file():
            quota, period = second.read_text(encoding="ascii").split()[:2]
        else:
            quota = (first / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (first / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # no cgroup here, or "max"
        return None


def _physical_cores() -> int:
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = _CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        cores.add(siblings.read_text(encoding="ascii") if siblings.is_file() else str(cpu))
    return max(1, len(cores))
