"""What the benchmarks share: one thread, folders of their own, and which files are collected."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

HAS_GPU = torch.cuda.is_available()
collect_ignore = [] if HAS_GPU else ["bench_gpu.py"]


def pytest_report_header() -> str:
    """Say what was collected, and why."""
    return f"kernels on a GPU: {'collected' if HAS_GPU else 'left out, no GPU that torch can use'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the last canaries behind everything else."""
    items.sort(key=lambda item: item.name.endswith("[last]"))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Threads come and go with the machine's load; the code under test does not."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty cache."""
    folder = tmp_path_factory.mktemp("cache")
    folder.chmod(0o700)
    return folder
