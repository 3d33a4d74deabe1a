"""A row's sums do not depend on the rows beside it, where the order of summation is one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from autotune.paths import child_environment


def test_rows_are_the_same_to_the_bit_in_every_batch(tmp_path: Path) -> None:
    here = Path(__file__).resolve()
    done = subprocess.run(
        [sys.executable, str(here.with_name("one_order_worker.py")), str(tmp_path)],
        env=child_environment(TRITON_INTERPRET="1"),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answers = json.loads(done.stdout)
    assert len(answers["with"]) == 10
    assert {case: batches for case, batches in answers["with"].items() if batches} == {}
    assert all(answers["without"].values()), "defaults of two batch sizes: the test can fail"
