"""What all tests share: folders of their own, and property tests that repeat themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from own_folders import Folders

# The same examples on every machine, and no verdict that depends on how busy it is.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """Keep every test away from the user's cache and from the results of the checkout."""
    found = Folders.below(tmp_path)
    for name, value in found.variables.items():
        monkeypatch.setenv(name, value)
    return found
