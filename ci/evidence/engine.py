"""Stage: the engine on tuned kernels against transformers, token by token, graphs on and off."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from evidence.workplace import Workplace

_MODEL = "llama-2m-32k"
_MAKE = (
    "import sys, pathlib; from runtime.bench.make_model import make_model; "
    "make_model(sys.argv[1], pathlib.Path(sys.argv[2]))"
)
_CHECKS = (
    ("--dtype", "fp32"),
    ("--dtype", "bf16"),
    ("--dtype", "fp32", "--enforce-eager"),
    ("--dtype", "bf16", "--enforce-eager"),
)
_REHEARSAL = ("--prompts", "1", "--max-tokens", "4")


def engine(place: Workplace) -> dict[str, Any]:
    """`runtime check` with --ops triton: fp32 and bf16, with graphs and without"""
    ops = "torch" if place.rehearsal else "triton"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / _MODEL
        made = subprocess.run([sys.executable, "-c", _MAKE, _MODEL, str(model)], check=False)
        if made.returncode:
            return {"failed": f"no model could be made: exit code {made.returncode}"}
        for words in _CHECKS[:1] if place.rehearsal else _CHECKS:
            command = [sys.executable, "-m", "runtime", "check", str(model), "--json"]
            command += ["--ops", ops, *words, *(_REHEARSAL if place.rehearsal else ())]
            rows.append(_run(command, place.deadline.left_s) | {"options": " ".join(words)})
            print(
                f"runtime check --ops {ops} {' '.join(words)}: {rows[-1]['exit_code']}", flush=True
            )
    failed = [row["options"] for row in rows if row["exit_code"] != 0]
    return {"ops": ops, "checks": rows, **({"failed": f"of {failed}"} if failed else {})}


def _run(command: list[str], timeout_s: float | None) -> dict[str, Any]:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return {"exit_code": None, "outcome": f"no answer within {timeout_s:.0f} s"}
    try:
        outcome = json.loads(done.stdout)
    except ValueError:
        outcome = done.stderr[-2000:]
    return {"exit_code": done.returncode, "outcome": outcome}
