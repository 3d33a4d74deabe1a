"""The soak runs, reports each configuration, and fails when something is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).resolve().parents[2] / "ci" / "soak.py"


def test_a_short_soak_finds_no_violation() -> None:
    done = subprocess.run(
        [sys.executable, str(SOAK), "--steps", "1200"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert len(rows) == 14, "a title, twelve configurations, a sum"
    assert rows[-1].startswith("in all")
    assert rows[-1].endswith(" 0")
    assert int(rows[-1].split()[2]) >= 1200, "steps in all"
