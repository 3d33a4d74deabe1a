"""Compile reports on disk, by content: the same source, target and toolchain compile once, ever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.arch import GpuArch
from autotune.config import Config
from autotune.files import write_atomically
from autotune.records import CompileReport, Environment, Evaluation, Status, to_json
from autotune.render import RenderedKernel

_FORMAT = 3
"""Raise it when a report of the same binary can change."""


class ReportCache:
    """Outcomes of compilations below one folder. A damaged entry is a miss."""

    def __init__(self, folder: Path, arch: GpuArch, environment: Environment) -> None:
        self._folder = folder / "reports"
        self._context = f"{_FORMAT} {arch.target} {environment.triton} {environment.assembler}"

    def _path(self, rendered: RenderedKernel) -> Path:
        key = hashlib.sha256(f"{self._context} {rendered.digest}".encode()).hexdigest()[:24]
        return self._folder / key[:2] / f"{key}.json"

    def get(self, rendered: RenderedKernel, config: Config) -> Evaluation | None:
        """Return what compiling `rendered` gave before, as an evaluation of `config`."""
        try:
            data: Mapping[str, Any] = json.loads(self._path(rendered).read_text(encoding="utf-8"))
            return Evaluation(
                config=config,
                status=Status(data["status"]),
                reason=data["reason"],
                reports=tuple(CompileReport.from_json(item) for item in data["reports"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AssertionError, RecursionError):
            return None

    def put(self, rendered: RenderedKernel, evaluation: Evaluation) -> None:
        """Remember a finished compilation; timeouts and crashes are not facts about the source."""
        if evaluation.status in (Status.OK, Status.COMPILE_ERROR):
            record = {
                "status": evaluation.status.value,
                "reason": evaluation.reason,
                "reports": [to_json(report) for report in evaluation.reports],
            }
            write_atomically(self._path(rendered), json.dumps(record))
