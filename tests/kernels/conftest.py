"""What tests of kernels share: a process that interprets them, since its start takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from autotune.pool import WorkerPool
from autotune.verify import checkers


@pytest.fixture(scope="session")
def interpreter() -> Iterator[WorkerPool]:
    """One process that checks candidates in Triton's interpreter."""
    with checkers(1, "cpu") as pool:
        yield pool
