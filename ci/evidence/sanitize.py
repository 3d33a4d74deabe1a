"""Stage: memory errors and races of every kernel, as NVIDIA's compute-sanitizer finds them."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from evidence.workplace import Workplace

from autotune.kernels import KERNELS, load_kernel
from autotune.paths import cache_dir, child_environment

TOOL = "compute-sanitizer"
CHECKS = ("memcheck", "racecheck")
_SUMMARY = re.compile(
    r"ERROR SUMMARY: (?P<errors>\d+) error"
    r"|RACECHECK SUMMARY: \d+ hazards? displayed \((?P<hazards>\d+) error"
)
_PLACE = Path("/usr/local/cuda/bin")
"""Where CUDA's tools lie when they are not on the path."""


def sanitize(place: Workplace) -> dict[str, Any]:
    """compute-sanitizer's memcheck and racecheck over a small and a large run of each kernel"""
    tool = shutil.which(TOOL) or shutil.which(TOOL, path=_PLACE)
    if tool is None:
        print(f"skipped: {TOOL} is neither on the PATH nor in {_PLACE}")
        return {"skipped": f"{TOOL} is not installed"}
    requests = _requests(place)
    place.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, check in enumerate(CHECKS):
        left_s = place.deadline.share(len(CHECKS) - number).left_s
        rows.append(_run(tool, check, requests, place.folder / f"{check}.log", left_s))
        print(f"{check}: {json.dumps({k: v for k, v in rows[-1].items() if k != 'answers'})}")
    bad = [row["check"] for row in rows if row.get("errors")]
    return {"runs": rows, **({"failed": f"{', '.join(bad)} found errors"} if bad else {})}


def found_errors(text: str) -> int | None:
    """Errors that a log of the tool sums up; None without a summary, of a run that was cut off."""
    found = list(_SUMMARY.finditer(text))
    if not found:
        return None
    return sum(int(match["errors"] or match["hazards"] or 0) for match in found)


def _requests(place: Workplace) -> list[dict[str, Any]]:
    """Checks of defaults, compiled ahead: the tool is to watch kernels, not a compiler."""
    device = f"simulated:{place.simulate}" if place.rehearsal else "cuda"
    found = []
    for name in KERNELS:
        spec = load_kernel(name)
        halves = [p for p in spec.hard_problems() if p.exact_axes()["dtype"] in ("bf16", "fp16")]
        sizes = [math.prod(problem.nearest_axes().values()) for problem in halves]
        picked = {sizes.index(size): None for size in (min(n for n in sizes if n), max(sizes))}
        for problem in (halves[at] for at in picked):
            config = spec.default_config(problem, place.arch)
            place.builder.evaluate(spec, problem, [config])
            path = place.templates.render(spec, problem, config).write(cache_dir())
            found.append(
                {
                    "op": "check",
                    "kernel": name,
                    "problem": {**problem.exact_axes(), **problem.nearest_axes()},
                    "config": dict(config),
                    "path": str(path),
                    "seed": 0,
                    "device": device,
                }
            )
    return found


def _run(
    tool: str, check: str, requests: list[dict[str, Any]], log: Path, timeout_s: float | None
) -> dict[str, Any]:
    command = [tool, "--tool", check, "--target-processes", "application-only"]
    command += ["--log-file", str(log), sys.executable, "-m", "autotune.worker"]
    environment = {
        **child_environment(TRITON_DISABLE_LINE_INFO="1", OMP_NUM_THREADS="1"),
        # Each tensor an allocation of its own: what is read beyond one is an error then.
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
    }
    row: dict[str, Any] = {"check": check, "command": " ".join(map(os.path.basename, command))}
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    try:
        done = subprocess.run(
            command,
            input=lines,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return row | {"skipped": f"no end within {timeout_s:.0f} s"}
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    text = log.read_text(errors="replace") if log.is_file() else done.stderr
    errors = found_errors(text)
    row |= {"exit_code": done.returncode, "asked": len(requests), "answered": len(answers)}
    row["answers"] = [
        {"kernel": request["kernel"], "problem": request["problem"], **answer}
        for request, answer in zip(requests, answers, strict=False)
    ]
    if errors is None:
        return row | {"skipped": f"it does not work here: {text.strip()[-300:]}"}
    return row | {"errors": errors, "wrong": sum(a["status"] != "ok" for a in answers)}
