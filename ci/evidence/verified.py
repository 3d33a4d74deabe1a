"""Stage: is every kernel right on the device, in the types that the interpreter cannot do?"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from evidence.workplace import Workplace

from autotune.kernels import KERNELS, load_kernel
from autotune.paths import cache_dir
from autotune.race_log import RaceLog
from autotune.records import Status
from autotune.verify import cases, in_dtypes, verify

_SAMPLES = 8
_REHEARSAL_SAMPLES = 1


def verified(place: Workplace) -> dict[str, Any]:
    """The whole hard list in bf16 and fp16, random configurations, poisoned memory"""
    specs = [load_kernel(name) for name in KERNELS]
    samples = _REHEARSAL_SAMPLES if place.rehearsal else _SAMPLES
    wanted = list(
        cases(
            specs, place.arch, samples, 0, lambda s: in_dtypes(s.hard_problems(), ("bf16", "fp16"))
        )
    )
    device = f"simulated:{place.simulate}" if place.rehearsal else "cuda"
    log = RaceLog(place.out / f"{place.stage}.raw")
    counts: Counter[tuple[str, str]] = Counter()
    worst: dict[str, float] = {}
    failures = []
    for verdict in verify(wanted, place.templates, cache_dir(), 0, place.jobs, device):
        case = verdict.case
        group = f"{case.spec.name} {case.problem.exact_axes()['dtype']}"
        counts[group, verdict.status.value] += 1
        if verdict.relative is not None:
            worst[group] = max(worst.get(group, 0.0), verdict.relative)
        entry = dataclasses.asdict(
            dataclasses.replace(verdict, case=None)  # type: ignore[arg-type]
        )
        entry |= {"kernel": case.spec.name, "problem": case.problem.label()}
        entry |= {"config": dict(case.config)}
        log.add(entry)
        if verdict.status is not Status.OK:
            failures.append(entry)
        if place.deadline.passed:
            break
    done = sum(counts.values())
    print(f"{done} of {len(wanted)} candidates checked, {len(failures)} failed")
    document: dict[str, Any] = {
        "wanted": len(wanted),
        "checked": done,
        "worst_relative": worst,
        "statuses": {f"{group} {status}": n for (group, status), n in sorted(counts.items())},
        "failures": failures[:50],
    }
    if failures:
        document["failed"] = f"{len(failures)} candidates are wrong or did not run"
    return document
