"""Engines over random weights, and the ceiling that their steps are held against."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from runtime.bench.workload import Workload
from runtime.config import EngineConfig
from runtime.engine import LLMEngine

_COPY_BYTES = {"cuda": 4 << 30, "cpu": 1 << 26}


def device_name() -> str:
    """Where the engine runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def make_engine(
    folder: str, options: Mapping[str, Any], like: LLMEngine | None = None
) -> LLMEngine:
    """Make an engine with weights by seed, or with those of another one of the same length."""
    plain: dict[str, Any] = {
        "dtype": "bf16" if device_name() == "cuda" else "fp32",
        "load_format": "dummy",
        "skip_tokenizer": True,
    }
    config = EngineConfig(Path(folder), **(plain | dict(options)))
    if like is None:
        return LLMEngine(config)
    return LLMEngine(config, model=like.runner.model, ops=like.plan.ops)


def free() -> None:
    """Give back what nothing holds any longer."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def wait() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def copy_gbs() -> float:
    """Copy bandwidth, bytes read and written, gigabytes per second: median of ten."""
    device = device_name()
    size = _COPY_BYTES[device]
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / time_us(lambda: target.copy_(source), 1, 10) / 1e3


def time_us(work: Any, inner: int, repeats: int) -> float:
    """Median microseconds of `work`, called `inner` times in a row, after one warm-up."""
    work()
    found = []
    for _ in range(repeats):
        wait()
        started = time.perf_counter()
        for _ in range(inner):
            work()
        wait()
        found.append((time.perf_counter() - started) / inner * 1e6)
    return statistics.median(found)


def requests(
    name: str, count: int, prompt: tuple[int, int], output: tuple[int, int], vocab_size: int
) -> Workload:
    """Random requests with lengths uniform in closed ranges, the same every time."""
    source = random.Random(f"{name}/{count}")
    prompts = tuple(
        tuple(source.randrange(vocab_size) for _ in range(source.randint(*prompt)))
        for _ in range(count)
    )
    return Workload(name, prompts, tuple(source.randint(*output) for _ in range(count)))
