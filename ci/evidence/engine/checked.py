"""Stage: the engine against transformers, token by token: families, types, graphs, block sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from evidence.engine.shapes import FAMILIES, make
from evidence.workplace import Workplace

from autotune.race_log import RaceLog

_REHEARSAL = {
    "fp32": ("--prompts", "1", "--max-tokens", "4"),
    "bf16": ("--prompts", "4", "--max-tokens", "12"),  # noise takes a sample
}
_THREADS = 3
"""Of each check: transformers' side runs on the CPU."""
_LAST_S = 5.0
_BLOCK_SIZES = (32, 64, 128, 256)
"""16 is among every check's scenarios."""


def plan() -> list[tuple[str, tuple[str, ...]]]:
    """Family and options of every check, most valuable first."""
    fp32, bf16 = ("--dtype", "fp32"), ("--dtype", "bf16")
    found = [(family, dtype) for dtype in (fp32, bf16) for family in FAMILIES]
    eager = "--enforce-eager"
    found += [(family, (*dtype, eager)) for family in ("llama", "gemma2") for dtype in (fp32, bf16)]
    sizes = [("--block-size", str(size)) for size in _BLOCK_SIZES]
    found += [(family, (*fp32, *size)) for family in ("llama", "phi3", "gemma2") for size in sizes]
    found += [("llama", (*bf16, *size)) for size in sizes]
    found += [
        ("llama", (*fp32, "--kv-cache-dtype", "fp8")),
        ("llama", (*bf16, "--kv-cache-dtype", "int8")),
        ("llama", (*bf16, "--quantization", "int4")),
        ("llama", (*bf16, "--quantization", "int8")),
    ]
    return found


def checked(place: Workplace) -> dict[str, Any]:
    """`runtime check`, three tiers: a model per family, graphs on and off, blocks of 16 to 256"""
    ops = "torch" if place.rehearsal else "triton"
    wanted = plan()[:: len(FAMILIES) + 1] if place.rehearsal else plan()
    document: dict[str, Any] = {"ops": ops, "checks": [], "left_out": []}
    if place.rehearsal:
        document["rehearsal"] = "torch's operations on a CPU: no kernel was checked"
    one_at_a_time = threading.Lock()
    log = RaceLog(place.out / f"{place.stage}.raw")
    with tempfile.TemporaryDirectory() as folder:
        used = {family: FAMILIES[family] for family, _ in wanted}
        failed = make(Path(folder), used)
        if failed is not None:
            return {"failed": failed}

        def check(entry: tuple[str, tuple[str, ...]]) -> None:
            family, words = entry
            name = f"{family} {' '.join(words)}"
            left_s = (place.deadline.left_s or 3600.0) - _LAST_S
            if left_s <= 0:
                document["left_out"].append(name)
                return
            extra = _REHEARSAL[words[1]] if place.rehearsal else ()
            found = _run(f"{folder}/{family}", ["--ops", ops, *words, *extra], left_s)
            with one_at_a_time:
                log.add({"check": name, **found})
                if found["exit_code"] is None:
                    document["left_out"].append(name)
                else:
                    document["checks"].append(_told(name, found))
                print(f"{name}: {found['exit_code']}, {found['seconds']:.0f} s", flush=True)
                place.keep(document)

        at_once = max(1, min(6, place.jobs // _THREADS))
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(check, wanted))
    bad = [row["check"] for row in document["checks"] if row["exit_code"] != 0]
    tokens = sum(row["tokens"] for row in document["checks"])
    print(f"{len(document['checks'])} of {len(wanted)} checks, {tokens} tokens, {len(bad)} failed")
    if not document["checks"]:
        document["failed"] = "no check has ended in time"
    return {
        "summary": {"wanted": len(wanted), "tokens": tokens, "failures": len(bad)},
        **document,
        **({"failed": f"of {bad}"} if bad else {}),
    }


def _run(model: str, words: Sequence[str], timeout_s: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "runtime", "check", model, "--json", *words]
    threads = str(_THREADS)
    started = time.monotonic()
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )
    except subprocess.TimeoutExpired:
        return {"exit_code": None, "outcome": [], "seconds": time.monotonic() - started}
    try:
        outcome: Any = json.loads(done.stdout)
    except ValueError:
        outcome = done.stderr[-3000:]
    return {
        "exit_code": done.returncode,
        "outcome": outcome,
        "seconds": time.monotonic() - started,
    }


def _told(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """One row for the document; all outcomes are in the raw file."""
    outcome = found["outcome"]
    row = {"check": name, "exit_code": found["exit_code"], "seconds": round(found["seconds"], 1)}
    if isinstance(outcome, str):
        return row | {"tokens": 0, "error": outcome}
    wrong = [each for each in outcome if not each["passed"]]
    notes = {f"{each['tier']}, {each['scenario']}": each["note"] for each in outcome}
    row |= {"tokens": sum(each["num_tokens"] for each in outcome), "scenarios": len(outcome)}
    return row | {"notes": notes, "wrong": wrong}
