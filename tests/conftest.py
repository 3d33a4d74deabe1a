"""What all tests share: folders of their own, and property tests that repeat themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every machine, and no verdict that depends on how busy it is.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a test's cache, results and studies lie."""

    cache: Path
    results: Path
    studies: Path


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """Keep every test away from the user's cache and from the results of the checkout."""
    found = Folders(tmp_path / "cache", tmp_path / "results", tmp_path / "studies")
    monkeypatch.setenv("AUTOTUNE_CACHE", str(found.cache))
    monkeypatch.setenv("AUTOTUNE_RESULTS", str(found.results))
    monkeypatch.setenv("AUTOTUNE_STUDIES", str(found.studies))
    return found
