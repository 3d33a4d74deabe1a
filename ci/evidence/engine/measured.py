"""Stages: the engine's throughput, latency, memory and what tuning is worth to it, by probes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evidence.engine import scale
from evidence.engine.child import probe
from evidence.engine.shapes import LARGE, SMALL
from evidence.workplace import Workplace

from runtime.bench.make_model import make_model

_GOALS = {"hf": 24.0, "hf-batch": 8.0, "hf-continuous": 2.0}
"""Times the contender's throughput that the engine is to reach."""
_OF_FLOOR = 0.8
_MOST_WASTE = 0.04


def throughput(place: Workplace) -> dict[str, Any]:
    """8B shape: 256 requests against `generate`, one by one and in batches, and `generate_batch`"""
    return _throughput(place, LARGE)


def throughput_small(place: Workplace) -> dict[str, Any]:
    """0.6B shape: the same, where the host decides"""
    return _throughput(place, SMALL)


def latency(place: Workplace) -> dict[str, Any]:
    """Batch 1 and 8: time per token against bytes over copy bandwidth, host phases by name"""
    document = _probe(place, "latency", LARGE, scale.latency(place))
    for row in document.get("batches", []):
        print(
            f"batch {row['batch']}: {row['step_us']:.0f} us a token, {row['of_floor']:.1%} of the "
            f"floor (goal {_OF_FLOOR:.0%})"
        )
        parts = [f"{name} {us:.1f}" for name, us in row["host_us"].items()]
        print(f"  host, us a step: {', '.join(parts)}")
        print(f"  device, us: {row['device_us']}")
    return document | {"goal_of_floor": _OF_FLOOR}


def memory(place: Workplace) -> dict[str, Any]:
    """Unused KV slots, sequences held against padding, 131,072 tokens, 1,000 requests at once"""
    document = _probe(place, "memory", LARGE, scale.memory(place))
    many = document.get("many")
    if many:
        print(
            f"{many['finished']} of {many['requests']} requests, {many['most_sequences']} at once"
        )
    for size, row in document.get("same_memory", {}).items():
        print(
            f"blocks of {size}: {row['kv_waste']:.2%} of the slots unused (goal under "
            f"{_MOST_WASTE:.0%}), {row['mean_sequences']:.1f} sequences where padding holds "
            f"{row['padded_sequences']}"
        )
    if "long" in document:
        print(f"one sequence of {document['long']['tokens']} tokens: {document['long']}")
    return document | {"goal_kv_waste": _MOST_WASTE}


def tuned(place: Workplace) -> dict[str, Any]:
    """Tuned against default configurations end to end, on three workloads"""
    with tempfile.TemporaryDirectory() as empty:
        request = {
            **scale.tuned(place),
            "results": None if place.results is None else str(place.results),
            "default_results": empty,
        }
        document = _probe(place, "tuned", LARGE, request)
    for row in document.get("workloads", []):
        print(
            f"{row['workload']}: tuned {row['tuned']['tokens_per_s']:.0f} tokens/s, default "
            f"{row['default']['tokens_per_s']:.0f}: {row['gain']:.3f} x, spread "
            f"{row['spread']:.1%}: {row['tuned_is']}"
        )
    return document


def _throughput(place: Workplace, model: str) -> dict[str, Any]:
    document = _probe(place, "throughput", model, scale.throughput(place, model))
    contenders: Mapping[str, Any] = document.get("contenders", {})
    for name, row in contenders.items():
        goal = _GOALS.get(name)
        beside = "" if goal is None else f", engine {row['engine_ratio']:.1f} x (goal {goal:.0f})"
        print(f"{name}: {row['output_tokens_per_s']:.0f} output tokens/s{beside}")
    return document | {"goals": _GOALS, "missing": sorted(_GOALS.keys() - contenders.keys())}


def _probe(place: Workplace, name: str, model: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run a probe on a model of random weights, of which there is a config.json alone."""
    shape = scale.shape(place, model)
    document: dict[str, Any] = {"model": shape, "request": dict(request)}
    if place.rehearsal:
        document["rehearsal"] = f"{shape} on a CPU for {model}: no figure is a GPU's"
        print(f"REHEARSAL: {document['rehearsal']}")
    with tempfile.TemporaryDirectory() as folder:
        make_model(shape, Path(folder), is_dummy=True)
        return probe(place, name, {**request, "folder": folder}, document)


STAGES: Mapping[str, Callable[[Workplace], dict[str, Any]]] = {
    "engine-latency": latency,
    "engine-throughput": throughput,
    "engine-tuned": tuned,
    "engine-memory": memory,
    "engine-throughput-small": throughput_small,
}
"""By value: what a lease that ends early must not lack comes first."""
