"""Runs the scheduler against the shadow device for many steps, in twelve small engines.

    python ci/soak.py --steps 100000

Every step is checked as in tests/runtime/test_shadow_kv.py, and every output is compared with what
the request says alone. Prints a table; exits 1 at any violation, with the seed that shows it again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "runtime"))

from shadow import ShadowEngine
from shadow_workload import random_config, run

from runtime.preemption import PreemptionMode
from runtime.scheduler_config import SchedulingPolicy

_RECOMPUTE = {"preemption_mode": PreemptionMode.RECOMPUTE}
_SWAP = {"preemption_mode": PreemptionMode.SWAP, "num_host_blocks": 64}
_SYNC = {"max_steps_in_flight": 1}
_AHEAD = {"max_steps_in_flight": 2}
_TIGHT = {"block_size": 2, "num_blocks": 26, "enable_forecast": False, "max_num_seqs": 6}
_PRIORITY = {"policy": SchedulingPolicy.PRIORITY}
_STEPS_PER_ENGINE = 500

CONFIGURATIONS: dict[str, dict[str, object]] = {
    "anything": {},
    "synchronous, tight, recompute": {**_TIGHT, **_SYNC, **_RECOMPUTE},
    "synchronous, tight, swap": {**_TIGHT, **_SYNC, **_SWAP},
    "ahead, tight, recompute": {**_TIGHT, **_AHEAD, **_RECOMPUTE},
    "ahead, tight, swap": {**_TIGHT, **_AHEAD, **_SWAP},
    "ahead, tight, by cost, few host blocks": {
        **_TIGHT,
        **_AHEAD,
        "preemption_mode": None,
        "num_host_blocks": 6,
    },
    "priority, tight, ahead": {**_TIGHT, **_AHEAD, **_PRIORITY},
    "priority, swap, synchronous": {**_TIGHT, **_SYNC, **_PRIORITY, **_SWAP},
    "blocks of one token": {**_AHEAD, "block_size": 1, "num_blocks": 50},
    "no prefix cache": {**_AHEAD, "enable_prefix_caching": False},
    "chunks of three": {**_AHEAD, "long_prefill_token_threshold": 3},
    "whole prompts": {
        "enable_chunked_prefill": False,
        "long_prefill_token_threshold": None,
        "max_num_batched_tokens": 48,
    },
}


@dataclass
class Tally:
    """What one configuration did."""

    name: str
    num_steps: int
    seconds: float
    counts: Counter[str]
    violations: list[str]


def soak(name: str, fixed: dict[str, object], num_steps: int, seed: int) -> Tally:
    """Run engines of one configuration, a fresh one every few hundred steps."""
    started = time.perf_counter()
    counts: Counter[str] = Counter()
    violations: list[str] = []
    done = 0
    while done < num_steps:
        rng = Random(f"{name} {seed}")
        engine = ShadowEngine(random_config(rng, **fixed))
        try:
            run(engine, rng, min(_STEPS_PER_ENGINE, num_steps - done))
        except (AssertionError, IndexError, KeyError) as error:
            violations.append(f"{name}, seed {seed}: {type(error).__name__}: {error}")
        done += max(engine.num_steps, 1)
        stats = engine.scheduler.stats()
        counts += engine.counts
        counts += Counter(stats.num_preemptions)
        counts["hits"] += stats.num_prefix_hits
        counts["evictions"] += stats.num_evictions
        seed += 1
    return Tally(name, done, time.perf_counter() - started, counts, violations)


def main() -> int:
    """Run all configurations and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="steps in all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    per_configuration = -(-args.steps // len(CONFIGURATIONS))
    columns = ("taken", "aborted", "tokens", "recompute", "swap", "copies", "hits", "evictions")
    titles = "".join(f"{title:>10}" for title in ("steps", *columns, "violations", "s"))
    print(f"{'configuration':<40}{titles}")
    total: Counter[str] = Counter()
    violations: list[str] = []
    for name, fixed in CONFIGURATIONS.items():
        tally = soak(name, fixed, per_configuration, args.seed)
        row = [tally.num_steps, *(tally.counts[column] for column in columns)]
        numbers = "".join(f"{number:>10}" for number in (*row, len(tally.violations)))
        print(f"{name:<40}{numbers}{tally.seconds:>10.1f}", flush=True)
        total += tally.counts
        total["steps"] += tally.num_steps
        violations += tally.violations
    numbers = "".join(f"{total[column]:>10}" for column in ("steps", *columns))
    print(f"{'in all':<40}{numbers}{len(violations):>10}")
    for violation in violations[:20]:
        print(violation, file=sys.stderr)
    return int(bool(violations))


if __name__ == "__main__":
    raise SystemExit(main())
