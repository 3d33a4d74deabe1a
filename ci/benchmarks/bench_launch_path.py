"""Launching bound kernels again, as an engine does; without a GPU a stub is the driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from bench_launch import prepare
from pytest_benchmark.fixture import BenchmarkFixture
from stub_driver import StubDriver
from triton.runtime import driver

from autotune.arch import lookup

KERNELS = ("paged_attention_decode", "paged_attention_decode, split", "fused_mlp", "rope_kv_write")
"""Few and many arguments, one kernel and two."""


@pytest.fixture
def device() -> Iterator[str]:
    """Where launches go; what Triton takes for its device is put back."""
    if torch.cuda.is_available():
        yield "cuda"
        return
    StubDriver(lookup("a100")).activate()
    yield "cpu"
    driver.set_active(None)  # looked for when it is next asked for; `reset_active` does so at once


@pytest.mark.parametrize("kernel", KERNELS)
def bench_launch_again(benchmark: BenchmarkFixture, device: str, kernel: str) -> None:
    """One call of `launch` with a layout that is known, found in a table by size."""
    ways = prepare(kernel, lookup("a100"), device)
    benchmark.pedantic(ways.ours, rounds=60, iterations=500, warmup_rounds=5)
