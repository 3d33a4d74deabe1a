"""Checkpoints end to end: importer and kernel together against what the files mean, in fp64."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from autotune.paths import child_environment


def test_the_kernel_multiplies_what_checkpoints_mean(tmp_path: Path) -> None:
    here = Path(__file__).resolve()
    done = subprocess.run(
        [sys.executable, str(here.with_name("imported_worker.py")), str(tmp_path)],
        env=child_environment(TRITON_INTERPRET="1"),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(done.stdout)
    assert len(answers) == 15
    assert answers.pop("without the order"), "an order that is ignored must show"
    assert {case: fault for case, fault in answers.items() if fault} == {}
