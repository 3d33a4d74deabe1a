"""Decode over contexts that are cut into chunks: right, and the same to the bit in every batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from autotune.paths import child_environment


def test_a_sequence_is_cut_by_its_own_length_alone(tmp_path: Path) -> None:
    """Lengths around a chunk's, unwritten memory all NaN, tables of any width."""
    here = Path(__file__).resolve()
    done = subprocess.run(
        [sys.executable, str(here.with_name("chunks_worker.py")), str(tmp_path)],
        env=child_environment(TRITON_INTERPRET="1"),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answers = json.loads(done.stdout)
    assert len(answers["with"]) == 7
    assert {case: faults for case, faults in answers["with"].items() if faults} == {}
    assert answers["without"], "ranges by number, as many as fill a GPU: the test can fail"
