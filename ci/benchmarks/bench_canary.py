"""Work that no change of ours can make slower: if it moves, the machine did.

At the start and at the end, as a machine that others share changes its speed in between, too.
"""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

TWICE = pytest.mark.parametrize("when", ["first", "last"])


@TWICE
def bench_canary_copy(benchmark: BenchmarkFixture, when: str) -> None:
    """64 MiB, beyond the caches."""
    source = np.ones(64 << 20, dtype=np.int8)
    target = np.empty_like(source)
    benchmark.pedantic(np.copyto, (target, source), rounds=60, warmup_rounds=3)


@TWICE
def bench_canary_matrix_product(benchmark: BenchmarkFixture, when: str) -> None:
    """512 x 512 in fp64."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 512, 512))
    benchmark.pedantic(np.matmul, (a, b), rounds=60, warmup_rounds=3)


@TWICE
def bench_canary_interpreter(benchmark: BenchmarkFixture, when: str) -> None:
    """Python's own objects: calls, lists, dictionaries."""

    def count() -> int:
        seen: dict[int, list[int]] = {}
        for number in range(20_000):
            seen.setdefault(number * 7919 % 4096, []).append(number)
        return sum(len(numbers) for numbers in seen.values())

    assert benchmark.pedantic(count, rounds=60, warmup_rounds=3) == 20_000
