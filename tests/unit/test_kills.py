"""kill -9 of a writer of results, at every step, and of runs, which go on to the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def script(name: str, *words: str | Path) -> dict[str, Any]:
    """Run a script that stands beside this file; what it prints."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(name)), *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_results_file_is_whole_wherever_its_writer_was_killed(tmp_path: Path) -> None:
    found = script("write_under_fire.py", tmp_path, "1000")
    assert found["kills"] == 1000
    assert found["unreadable"] == 0
    assert found["mistaken_for_results"] == 0
    assert found["cells_read"] >= 1
    # Before the write, in it, and after the new content took the old one's place.
    assert found["kill_points"] >= 20
    assert found["changed"] >= 5
    assert found["killed_in_a_write"] >= 50


def test_killed_runs_go_on_to_the_same_bytes(tmp_path: Path) -> None:
    runs, kills_per_run = 3, 3
    found = script("tune_under_fire.py", tmp_path, str(runs), str(kills_per_run))
    assert found["kills"] >= runs, "too few runs were killed to show anything"
    assert found["different"] == 0
    assert found["most_compiled_again"] <= kills_per_run, "more than what was in flight"
