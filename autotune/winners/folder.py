"""Reads folders of measured winners: `*.json.gz` (or `.json`) files, one kernel on one GPU each."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.arch import GPUS, GpuArch
from autotune.errors import CorruptResultError, UsageError
from autotune.winners import attention, dequant, moe, tiled
from autotune.winners.case import Case

_LARGEST_FILE = 64 << 20
_ATTENTION = ("problem", "config", "time_us")
_TEXT = ("kind", "activation_dtype", "dtype")
_AXES = (
    "max_seq_q", "max_seq_k", "avg_seq_q", "avg_seq_k",
    "num_query_heads", "num_queries_per_kv", "block_size", "head_size_padded",
)  # fmt: skip
_KNOBS = ("BLOCK_M", "BLOCK_N", "num_warps", "num_stages")


@dataclass(frozen=True, slots=True)
class WinnersFile:
    """What one file gave."""

    path: Path
    kernel: str
    gpu: str
    records: int
    cases: tuple[Case, ...]
    skipped: str | None = None
    """Why nothing could be made of it."""


def read_folder(folder: Path) -> list[WinnersFile]:
    """Every file of a folder, in order of names.

    Raises:
        UsageError: there is no such folder, or no such file in it.
        CorruptResultError: a file is damaged or says impossible things.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder of measured winners")
    paths = sorted(p for p in folder.iterdir() if p.name.endswith((".json.gz", ".json")))
    if not paths:
        raise UsageError(f"{folder} holds no *.json.gz or *.json file of measured winners")
    return [read_file(path) for path in paths]


def read_file(path: Path) -> WinnersFile:
    """One file: its cases, or the reason for which there are none."""
    data = _parse(path)
    try:
        kernel, name = data["kernel"], data["gpu"]
        columns, rows = data["columns"], data["rows"]
        if not (isinstance(kernel, str) and isinstance(name, str)):
            raise TypeError("kernel and gpu have to be text")
        gpu = GPUS.get(name.lower())
        if gpu is None:
            reason = f"unknown GPU {name!r}; known: {', '.join(GPUS)}"
            return WinnersFile(path, kernel, name, len(rows), (), reason)
        if not rows or any(len(row) != len(columns) for row in rows):
            raise ValueError("rows do not have one value per column")
        if set(_ATTENTION) <= set(columns):
            at = [columns.index(column) for column in _ATTENTION]
            found = attention.cases(gpu, [_attention_row([row[i] for i in at]) for row in rows])
        else:
            found = _gemm_cases(gpu, kernel, [_row(columns, row) for row in rows])
        cases = tuple(case for case in found if case is not None)
    except UsageError as error:
        return WinnersFile(path, str(kernel), str(name), len(rows), (), str(error))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptResultError(f"{path} is no file of measured winners: {error!r}") from error
    return WinnersFile(path, kernel, name, len(rows), cases)


def _gemm_cases(gpu: GpuArch, kernel: str, rows: list[dict[str, Any]]) -> Iterator[Case | None]:
    present = set.intersection(*(set(row) for row in rows))
    if set(dequant.REQUIRED) <= present:
        return dequant.cases(gpu, rows)
    if set(moe.REQUIRED) <= present:
        return moe.cases(gpu, rows)
    if set(tiled.REQUIRED) <= present and {"m", "tokens"} & present:
        return tiled.cases(gpu, kernel, rows)
    raise UsageError(
        f"columns {sorted(present)} are of no kernel that can be mapped; a tiled GEMM needs "
        f"m or tokens, {', '.join(tiled.REQUIRED)}"
    )


def _parse(path: Path) -> Mapping[str, Any]:
    opener = gzip.open if path.name.endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8") as stream:
            text = stream.read(_LARGEST_FILE + 1)
        if len(text) > _LARGEST_FILE:
            raise ValueError(f"more than {_LARGEST_FILE >> 20} MiB")
        data = json.loads(text)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise CorruptResultError(f"cannot read {path}: {error}") from error
    if not isinstance(data, dict):
        raise CorruptResultError(f"{path} holds no JSON object")
    return data


def _row(columns: list[str], values: list[Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column, value in zip(columns, values, strict=True):
        if column in _TEXT:
            row[column] = str(value)
        elif column != "extra":
            row[column] = _count(column, value)
    return row


def _attention_row(row: list[Any]) -> tuple[dict[str, int], dict[str, int], float]:
    problem, config, time_us = row
    axes = {axis: _count(axis, problem[axis]) for axis in _AXES}
    knobs = {knob: _count(knob, config[knob]) for knob in _KNOBS}
    if not isinstance(time_us, int | float) or not 0 < time_us < math.inf:
        raise ValueError(f"time_us={time_us!r} is no time")
    return axes, knobs, float(time_us)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 31:
        raise ValueError(f"{name}={value!r} is no positive whole number")
    return value
