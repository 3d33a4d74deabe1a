"""What `runtime bench` says: medians and ratios, as JSON or as a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime.bench.turns import Score
from runtime.bench.workload import Workload

_MIB = 1 << 20
_PIPE_WIDTH = 160
_COLUMNS = (
    "contender",
    "median s",
    "CPU s",
    "output tokens/s",
    "total tokens/s",
    "engine is",
    "peak MiB",
)


def summarise(workload: Workload, scores: Mapping[str, Score]) -> dict[str, Any]:
    """Figures of each contender; `engine_ratio` is how many times faster the engine is."""
    ours = _rate(workload, scores["engine"])
    figures: dict[str, Any] = {}
    for name, score in scores.items():
        rate, served = _rate(workload, score), workload.num_output_tokens
        read: int | None = workload.num_prompt_tokens
        if score.num_output_tokens is not None:
            served, read = score.num_output_tokens, score.num_prompt_tokens
        figures[name] = {
            "seconds": score.seconds,
            "cpu_seconds": score.cpu_seconds,
            "median_s": score.median_s,
            "output_tokens_per_s": rate,
            "total_tokens_per_s": None if read is None else (served + read) / score.median_s,
            "engine_ratio": ours / rate,
            "peak_rss_bytes": score.peak_rss_bytes,
            "peak_device_bytes": score.peak_device_bytes,
            "notes": dict(score.notes),
        }
        if served != workload.num_output_tokens:
            figures[name]["sampled_output_tokens"] = served
        if score.batch_size is not None:
            figures[name]["batch_size"] = score.batch_size
            figures[name]["tried_s"] = {str(size): s for size, s in score.tried_s.items()}
    return figures


def _rate(workload: Workload, score: Score) -> float:
    """Output tokens per second."""
    return (score.num_output_tokens or workload.num_output_tokens) / score.median_s


def print_report(report: Mapping[str, Any]) -> None:
    """Print one row per contender, then how the engine used its blocks."""
    print(
        f"{report['workload']}: {report['num_requests']} requests, {report['num_prompt_tokens']} "
        f"tokens in, {report['num_output_tokens']} out, {report['threads']} threads, "
        f"{report['dtype']}, KV cache {report['kv_dtype']}, weights {report['weights']}, "
        f"{report['rounds']} rounds, on {report['environment']['device']}"
    )
    table = Table(box=None, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "contender" else "right")
    for name, figures in report["contenders"].items():
        size = figures.get("batch_size")
        cpu_s = sorted(figures["cpu_seconds"])
        who = name if size is None else f"{name} of {size}"
        if "sampled_output_tokens" in figures:
            who = f"{who}, {figures['sampled_output_tokens']} tokens of it"
        row = (
            who,
            f"{figures['median_s']:.2f}",
            f"{cpu_s[len(cpu_s) // 2]:.2f}",
            f"{figures['output_tokens_per_s']:.1f}",
            "" if figures["total_tokens_per_s"] is None else f"{figures['total_tokens_per_s']:.1f}",
            "" if name == "engine" else f"{figures['engine_ratio']:.2f} x",
            f"{figures['peak_rss_bytes'] / _MIB:.0f}",
        )
        table.add_row(*map(Text, row))
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(highlight=False, width=width).print(table)
    for name, figures in report["contenders"].items():
        if figures["notes"]:
            print(f"{name}: {json.dumps(figures['notes'])}")
    kv = report["kv"]
    sampling = kv["parallel_sampling"]
    print(
        f"prefix cache hits {kv['prefix_hit_rate']:.1%}; KV slots unused {kv['kv_waste']:.1%} "
        f"(blocks of {kv['block_size']}, {kv['blocks_per_gib']} in a GiB, "
        f"{kv['bytes_per_token']} bytes a token); "
        f"n={sampling['n']} holds {sampling['blocks_shared']} blocks, "
        f"{sampling['blocks_unshared']} without sharing: {sampling['saving']:.0%} less"
    )
