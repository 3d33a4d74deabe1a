"""Stage: is every kernel right on the device, in the types that the interpreter cannot do?"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from evidence.workplace import Workplace

from autotune.kernels import KERNELS, load_kernel
from autotune.paths import cache_dir
from autotune.race_log import RaceLog
from autotune.records import Status
from autotune.verify import Case, cases, checkers, in_dtypes, verify_in

_SAMPLES = 8
_REHEARSAL_SAMPLES = 1
_BATCH = 256
"""Candidates between two looks at the clock."""


def verified(place: Workplace) -> dict[str, Any]:
    """The whole hard list in bf16 and fp16: defaults first, then random configurations"""
    specs = [load_kernel(name) for name in KERNELS]
    samples = _REHEARSAL_SAMPLES if place.rehearsal else _SAMPLES
    wanted = _ordered(
        list(
            cases(
                specs,
                place.arch,
                samples,
                0,
                lambda spec: in_dtypes(spec.hard_problems(), ("bf16", "fp16")),
            )
        )
    )
    device = f"simulated:{place.simulate}" if place.rehearsal else "cuda"
    log = RaceLog(place.out / f"{place.stage}.raw")
    counts: Counter[tuple[str, str]] = Counter()
    worst: dict[str, float] = {}
    failures = []
    with checkers(place.jobs, device) as pool:
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            for verdict in verify_in(pool, batch, place.templates, cache_dir(), 0, device):
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
                    print(f"{group} {case.problem.label()} {case.config}: {verdict.reason}")
            if place.deadline.passed:
                break
    done = sum(counts.values())
    totals: Counter[str] = Counter()
    for (group, _), count in counts.items():
        totals[group] += count
    for group in sorted(totals):
        said = "no error known" if group not in worst else f"worst relative {worst[group]:.2e}"
        print(f"{group}: {counts[group, 'ok']} of {totals[group]} right, {said}")
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


def _ordered(wanted: Sequence[Case]) -> list[Case]:
    """Defaults first, then the others shuffled: what time cuts off is a random part of those."""
    defaults: list[Case] = []
    others: list[Case] = []
    before: tuple[str, str] | None = None
    for case in wanted:  # each problem's default stands before its other candidates
        now = (case.spec.name, case.problem.label())
        (others if now == before else defaults).append(case)
        before = now
    random.Random(0).shuffle(others)
    return defaults + others
