"""The default number of threads respects the environment, the affinity mask and cgroups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime import threads


@pytest.fixture(autouse=True)
def four_cores_of_two_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu in range(8):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    monkeypatch.setattr(threads, "_CPUS", tmp_path)
    monkeypatch.setattr(threads, "cgroup_cpus", lambda: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def test_one_thread_per_core() -> None:
    assert threads.default_threads() == 4


def test_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 2})
    assert threads.default_threads() == 2


@pytest.mark.parametrize(("quota", "expected"), [(0.5, 1), (1.5, 2), (3.0, 3), (64.0, 4)])
def test_cgroup(quota: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cgroup_cpus", lambda: quota)
    assert threads.default_threads() == expected


def test_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7,2")
    assert threads.default_threads() == 7
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert threads.default_threads() == 4


def test_cgroup_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    second, first = tmp_path / "cpu.max", tmp_path / "cpu"
    assert threads.cgroup_cpus(second, first) is None
    first.mkdir()
    (first / "cpu.cfs_quota_us").write_text("150000\n")
    (first / "cpu.cfs_period_us").write_text("100000\n")
    assert threads.cgroup_cpus(second, first) == 1.5
    (first / "cpu.cfs_quota_us").write_text("-1\n")
    assert threads.cgroup_cpus(second, first) is None
    second.write_text("250000 100000\n")
    assert threads.cgroup_cpus(second, first) == 2.5
    second.write_text("max 100000\n")
    assert threads.cgroup_cpus(second, first) is None
