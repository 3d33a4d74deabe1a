"""A probe in a process of its own, which tells what it finds as it goes, and is stopped in time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evidence.workplace import Workplace

from autotune.race_log import RaceLog

_LAST_S = 10.0
"""Kept back for the stage's own end."""
_CI = Path(__file__).resolve().parents[2]


def probe(
    place: Workplace, name: str, request: Mapping[str, Any], document: dict[str, Any]
) -> dict[str, Any]:
    """Run a probe until it ends or the stage's time is up; what it tells is kept at once.

    Args:
        place: of the stage.
        name: of the probe, a module beside this one with a `main`.
        request: what it is to do.
        document: of the stage; grows: lists get longer, objects get more fields.

    Returns:
        `document`, with `stopped` if time was up, or `failed` if the probe died.
    """
    paths = [str(_CI), os.environ.get("PYTHONPATH", "")]
    log = RaceLog(place.out / f"{place.stage}.raw")
    command = [sys.executable, "-m", "evidence.engine.probe", name, json.dumps(request)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            start_new_session=True,  # so that what it started ends with it
        ) as process,
    ):
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        left_s = place.deadline.left_s
        clock = threading.Timer(max(1.0, (left_s or 3600.0) - _LAST_S), stop)
        clock.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                told = json.loads(line)
                raw = told.pop("raw", None)
                log.add({**told, **({} if raw is None else {"raw": raw})})
                merge(document, told)
                place.keep(document)
            process.wait()
        finally:
            clock.cancel()
        if stopped.is_set():
            document["stopped"] = f"time was up after {place.budget_s:.0f} s"
        elif process.returncode:
            errors.seek(0)
            last = errors.read().strip()[-2000:]
            document["failed"] = f"{name}: exit code {process.returncode}: {last}"
    return document


def merge(document: dict[str, Any], told: Mapping[str, Any]) -> None:
    """Add what was told: lists get longer, objects get fields or new ones, the rest is replaced."""
    for key, value in told.items():
        known = document.get(key)
        if isinstance(known, list) and isinstance(value, list):
            known.extend(value)
        elif isinstance(known, dict) and isinstance(value, dict):
            known.update(value)
        else:
            document[key] = value
