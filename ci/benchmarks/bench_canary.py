"""Work that no change of ours can make slower: if it moves, the machine did."""

from __future__ import annotations

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture


def bench_canary_copy(benchmark: BenchmarkFixture) -> None:
    """64 MiB, beyond the caches."""
    source = np.ones(64 << 20, dtype=np.int8)
    target = np.empty_like(source)
    benchmark.pedantic(np.copyto, (target, source), rounds=60, warmup_rounds=3)


def bench_canary_matrix_product(benchmark: BenchmarkFixture) -> None:
    """512 x 512 in fp64."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 512, 512))
    benchmark.pedantic(np.matmul, (a, b), rounds=60, warmup_rounds=3)
