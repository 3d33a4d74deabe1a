"""What the compiler said of the binaries of a recorded space, on disk beside the space.

With it the cost model can be judged on a recording without compiling anything again. One gzip file
of JSON per cell, `<gpu>-<kernel>-<axes>.facts.json.gz`; the spaces of its points have longer names
that begin with its name.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.config import Config
from autotune.errors import CorruptResultError
from autotune.files import write_bytes_atomically
from autotune.json_shape import listed, mapping, text
from autotune.records import CompileReport, Environment, to_json

SCHEMA_NAME = "pagetune-binary-facts"
SCHEMA_VERSION = 1
SUFFIX = ".facts.json.gz"
_MOST_BYTES = 64 << 20
"""Unpacked."""


@dataclass(frozen=True, slots=True)
class BinaryFacts:
    """Reports of one cell's binaries by configuration without host knobs."""

    name: str
    gpu: str
    kernel: str
    template_sha: str
    environment: Environment
    reports: Mapping[Config, tuple[CompileReport, ...]]


def write_facts(facts: BinaryFacts, folder: Path) -> Path:
    """Write `<folder>/<name>.facts.json.gz`; the same facts give the same bytes.

    Raises:
        StorageError: the file cannot be written.
    """
    document = {
        "schema": SCHEMA_NAME,
        "schema_version": SCHEMA_VERSION,
        "gpu": facts.gpu,
        "kernel": facts.kernel,
        "template_sha": facts.template_sha,
        "environment": to_json(facts.environment),
        "binaries": [
            {"config": dict(binary), "reports": [to_json(report) for report in reports]}
            for binary, reports in facts.reports.items()
        ],
    }
    path = folder / f"{facts.name}{SUFFIX}"
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    write_bytes_atomically(path, gzip.compress(text.encode(), compresslevel=9, mtime=0))
    return path


def facts_beside(space: Path) -> Path | None:
    """File of the facts of a recorded space: its name begins the space's. None without one."""
    stem = space.name.partition(".")[0]
    found = [
        path
        for path in space.parent.glob(f"*{SUFFIX}")
        if stem.startswith(path.name.removesuffix(SUFFIX) + "-")
    ]
    return max(found, key=lambda path: len(path.name), default=None)


def read_facts(path: Path) -> BinaryFacts:
    """Read one file.

    Raises:
        CorruptResultError: unreadable, too large, not of this schema, or a report is no report.
    """
    source = str(path)
    try:
        with gzip.open(path) as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise CorruptResultError(f"{path} unpacks to over {_MOST_BYTES >> 20} MiB")
        document: Any = json.loads(data)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise CorruptResultError(f"cannot read the facts {path}: {error}") from error
    known = isinstance(document, dict) and document.get("schema") == SCHEMA_NAME
    if not known or document.get("schema_version") != SCHEMA_VERSION:
        raise CorruptResultError(f"{path} is not of schema {SCHEMA_NAME} {SCHEMA_VERSION}")
    try:
        reports = {
            Config(entry["config"]): tuple(map(CompileReport.from_json, entry["reports"]))
            for entry in listed(document, "binaries", source)
        }
        environment = Environment(**mapping(document, "environment", source))
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptResultError(f"{path} has an entry that is none: {error!r}") from error
    return BinaryFacts(
        name=path.name.removesuffix(SUFFIX),
        gpu=text(document, "gpu", source),
        kernel=text(document, "kernel", source),
        template_sha=text(document, "template_sha", source),
        environment=environment,
        reports=reports,
    )
