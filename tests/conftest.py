"""What all tests share: folders of their own, and property tests that repeat themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from own_folders import Folders

from runtime.ops.torch_build import VARIABLE

if TYPE_CHECKING:
    from live_server import LiveServer

# A shell's background job ignores SIGINT, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.fixture(scope="session")
def served_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model that the server's tests serve."""
    from live_server import save_served_model

    return save_served_model(tmp_path_factory.mktemp("served-model"))


@pytest.fixture(scope="session")
def server(served_model: Path) -> Iterator[LiveServer]:
    """A server in its usual state, for tests that leave it so."""
    from live_server import served

    with served(served_model) as found:
        yield found


@pytest.fixture(scope="session", autouse=True)
def kernels_compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile C kernels once for all test processes of a run, away from the user's cache."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "cpu-kernels"
    folder.mkdir(mode=0o700, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder))
        yield
