"""What the probes are asked for: on a GPU, and at the size of a rehearsal on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evidence.engine.shapes import LARGE, REHEARSAL
from evidence.workplace import Workplace

_GIB = 1 << 30
_LONG = 131_072


def shape(place: Workplace, model: str) -> str:
    """What stands for a model."""
    return REHEARSAL if place.rehearsal else model


def latency(place: Workplace) -> dict[str, Any]:
    """Batch 1 and 8, contexts of 1,024 and more."""
    if place.rehearsal:
        small = {"max_num_seqs": 8, "max_model_len": 256}
        return {"batches": [1, 8], "prompt_len": 16, "steps": 4, "rounds": 1, "engine": small}
    engine = {
        "max_num_seqs": 8,
        "max_model_len": 4096,
        "max_num_batched_tokens": 8192,
        "kv_cache_bytes": 6 * _GIB,
    }
    return {"batches": [1, 8], "prompt_len": 1024, "steps": 96, "rounds": 5, "engine": engine}


def throughput(place: Workplace, model: str) -> dict[str, Any]:
    """256 requests; slow contenders get parts of them."""
    if place.rehearsal:
        limits = {"batch_sizes": [1, 2], "trial_tokens": 2, "sample": 1, "continuous_s": 20.0}
        return {
            "dtype": "fp32", "device": "cpu", "threads": 1, "requests": 3, "cut": 4, "rounds": 2,
            "limits": limits, "engine": {"load_format": "dummy", "max_num_seqs": 4},
        }  # fmt: skip
    sizes = [64, 128, 256]
    limits = {"batch_sizes": sizes, "trial_tokens": 48, "sample": 2, "continuous_s": 40.0}
    engine = {
        "load_format": "dummy",
        "max_num_seqs": 256,
        "max_num_batched_tokens": 8192,
        "gpu_memory_utilization": 0.9,
    }
    return {
        "dtype": "bf16", "device": "cuda", "threads": 8, "requests": 256, "cut": None,
        "rounds": 3 if model == LARGE else 5, "limits": limits, "engine": engine,
    }  # fmt: skip


def memory(place: Workplace) -> dict[str, Any]:
    """1,000 requests at once; a KV cache that is always short; 131,072 tokens."""
    if place.rehearsal:
        short: Mapping[str, Any] = {"prompt": [4, 12], "output": [2, 6], "looks_at_waste": True}
        return {
            "max_len": 512,
            "many": {**short, "requests": 20, "engine": {"max_num_seqs": 20}},
            "same_memory": {
                **short, "requests": 8, "engine": {"max_num_seqs": 8}, "slots": 64,
                "block_sizes": [16, 32], "longest": 18,
            },
            "long": {"prompt": 200, "output": 4, "slots": 256, "engine": {}},
        }  # fmt: skip
    many = {"max_num_seqs": 1000, "max_num_batched_tokens": 8192, "kv_cache_bytes": 34 * _GIB}
    return {
        "max_len": _LONG,
        "many": {
            "requests": 1000, "prompt": [64, 192], "output": [64, 128], "looks_at_waste": False,
            "engine": many,
        },
        "same_memory": {
            "requests": 128, "prompt": [100, 1024], "output": [100, 1024], "looks_at_waste": True,
            "slots": 32_768, "block_sizes": [16, 64, 128], "longest": 2048,
            "engine": {"max_num_seqs": 128, "max_num_batched_tokens": 8192},
        },
        "long": {
            "prompt": _LONG - 64, "output": 64, "slots": _LONG,
            "engine": {"max_num_seqs": 1, "max_num_batched_tokens": 8192},
        },
    }  # fmt: skip


def tuned(place: Workplace) -> dict[str, Any]:
    """A short chat, long contexts, a large batch."""
    if place.rehearsal:
        work = [{"name": "short chat", "requests": 2, "prompt": [4, 8], "output": [3, 3]}]
        return {"pairs": 1, "workloads": work, "engine": {"max_num_seqs": 4, "max_model_len": 64}}
    work = [
        {"name": "short chat", "requests": 8, "prompt": [64, 256], "output": [192, 192]},
        {"name": "batch 256", "requests": 256, "prompt": [128, 256], "output": [128, 128]},
        {"name": "long context", "requests": 4, "prompt": [24_000, 24_000], "output": [192, 192]},
    ]
    engine = {
        "max_num_seqs": 256,
        "max_num_batched_tokens": 8192,
        "max_model_len": 32_768,
        "kv_cache_bytes": 18 * _GIB,
    }
    return {"pairs": 2, "workloads": work, "engine": engine}
