"""Checks are raised, not asserted: they hold where `python -O` strips assertions (CVE-2026-41523).

pytest keeps the assertions of test files under -O; those of the packages are gone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import run_optimised

ROOT = Path(__file__).resolve().parents[2]

FILES = (
    "tests/server/test_strictness.py",
    "tests/server/test_messages.py",
    "tests/server/test_guard.py::test_wrong_keys",
    "tests/server/test_guard.py::test_right_keys",
    "tests/server/test_guard.py::test_bodies_are_bounded",
    "tests/runtime/test_sampling_params.py",
    "tests/runtime/test_scheduler_ends.py",
    "tests/unit/test_records.py",
    "tests/unit/test_results.py::test_edits_are_refused_with_the_reason",
)
"""What stands between somebody else's bytes and the engine."""

# By name, as these are about our own invariants, which are asserted.
INVARIANTS = ("test_ending_twice_is_an_error",)


def test_checks_hold_without_assertions(tmp_path: Path) -> None:
    command = [
        sys.executable, "-O", str(Path(run_optimised.__file__)), "-q", "-p", "no:cacheprovider",
        "-p", "pytest_timeout", "-W", "ignore::pytest.PytestConfigWarning",
        f"--basetemp={tmp_path / 'inner'}",
        "-k", " and ".join(f"not {name}" for name in INVARIANTS), *FILES,
    ]  # fmt: skip
    found = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-1000:]
    assert " passed" in found.stdout


def test_assertions_are_stripped_there() -> None:
    """Of the packages: else the test above would show nothing."""
    code = (
        "from runtime.block_hash import block_hash, extend_chain\n"
        "extend_chain([], b'', [1], 8, 1); print('stripped')"
    )
    for flags, is_stripped in ((["-O"], True), ([], False)):
        found = subprocess.run(
            [sys.executable, *flags, "-c", code],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ("stripped" in found.stdout) is is_stripped
        assert ("AssertionError" in found.stderr) is not is_stripped


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_there(name: str) -> None:
    assert (ROOT / name.partition("::")[0]).is_file()
