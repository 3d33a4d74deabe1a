"""Probe: the engine on tuned kernels against the same engine on default ones, in turns."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from evidence.engine.engines import free, make_engine, requests, wait
from evidence.engine.probe import Tell

from runtime.bench.contenders import serve
from runtime.bench.workload import Workload
from runtime.engine import LLMEngine
from runtime.explain import explain

_LEAST_GAIN = 0.01
"""Below it a gain is worth nothing, however sure it is."""


def main(request: Mapping[str, Any], tell: Tell) -> None:
    """Run every workload on both, A B B A, as often as asked for.

    Args:
        request: `folder`, `engine` options, `default_results` (an empty folder), `results` (None
            for those that the engine finds by itself), `workloads` and `pairs` of runs.
        tell: what the two engines run on, then a row for each workload.
    """
    shared = dict(request["engine"])
    tuned = make_engine(request["folder"], shared | {"results": request["results"]})
    # The same blocks for both: their size is a result of tuning, but not a kernel's.
    size = tuned.scheduler.config.block_size
    default = make_engine(
        request["folder"],
        shared | {"results": request["default_results"], "block_size": size},
    )
    free()
    tell(block_size=size, kernels=_differences(tuned, default))
    for entry in request["workloads"]:
        work = requests(
            entry["name"],
            entry["requests"],
            tuple(entry["prompt"]),
            tuple(entry["output"]),
            tuned.model_config.vocab_size,
        )
        engines = {"tuned": tuned, "default": default}
        for engine in engines.values():
            serve(engine, work.cut(4), salt="warm")
        order = ("tuned", "default", "default", "tuned") * request["pairs"]
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
        for number, name in enumerate(order):
            runs[name].append(_run(engines[name], work, f"{entry['name']} {number}"))
        tell(workloads=[_compare(entry["name"], work, runs)], raw=runs)


def _run(engine: LLMEngine, work: Workload, salt: str) -> dict[str, float]:
    """One serving; blocks of other runs are no use to it."""
    stamps: list[float] = []
    wait()
    served = serve(engine, work, lambda: stamps.append(time.perf_counter()), salt=salt)
    gaps = [after - before for before, after in itertools.pairwise(stamps)]
    return {
        "seconds": served.seconds,
        "tokens_per_s": served.num_output_tokens / served.seconds,
        "step_ms": statistics.median(gaps) * 1e3,
    }


def _compare(
    name: str, work: Workload, runs: Mapping[str, Sequence[Mapping[str, float]]]
) -> dict[str, Any]:
    """Medians, the gain, and whether it is worth anything: more than 1 %, and than the spread."""
    middle = {
        who: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for who, found in runs.items()
    }
    gain = middle["default"]["seconds"] / middle["tuned"]["seconds"]
    spread = max(
        max(run["seconds"] for run in found) / min(run["seconds"] for run in found) - 1
        for found in runs.values()
    )
    verdict = "worth nothing"
    if abs(gain - 1) > max(_LEAST_GAIN, spread):
        verdict = "faster" if gain > 1 else "SLOWER"
    return {
        "workload": name,
        "requests": len(work.prompts),
        "prompt_tokens": work.num_prompt_tokens,
        "output_tokens": work.num_output_tokens,
        **middle,
        "gain": gain,
        "spread": spread,
        "tuned_is": verdict,
    }


def _differences(tuned: LLMEngine, default: LLMEngine) -> dict[str, Any]:
    """Operations whose configuration tuning has changed, and how many it has not."""
    found = {
        name: {(row.operation, row.sizes): row for row in explain(engine.plan).kernels}
        for name, engine in (("tuned", tuned), ("default", default))
    }
    changed = [
        f"{operation}, {sizes}: {row.tier}, {row.provenance}"
        for (operation, sizes), row in found["tuned"].items()
        if (other := found["default"].get((operation, sizes))) is None
        or (row.config, row.library) != (other.config, other.library)
    ]
    return {"rows": len(found["tuned"]), "changed": changed}
