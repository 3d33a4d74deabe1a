"""What `runtime bench serve` prints and saves."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.bench.serve.figures import details, summarise
from runtime.bench.serve.run import Load
from runtime.bench.serve.settings import METRICS, LoadSettings

_WIDTH = 50
_NAME_WIDTH = 40
_MAX_ERRORS = 10


def describe(load: Load, settings: LoadSettings) -> dict[str, Any]:
    """The result, with what it takes to repeat it; keys as in `vllm bench serve`."""
    rate = settings.request_rate
    return {
        "date": time.strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": settings.backend,
        "backend": settings.backend,
        "label": settings.label,
        "model_id": load.model,
        "tokenizer_id": None if settings.tokenizer is None else str(settings.tokenizer),
        "num_prompts": settings.dataset.num_prompts,
        **settings.metadata,
        "request_rate": "inf" if rate is None else rate,
        "burstiness": settings.burstiness,
        "max_concurrency": settings.max_concurrency,
        **summarise(load.outcomes, load.duration_s, settings),
        **({"interrupted": load.num_interrupted} if load.num_interrupted else {}),
    }


def print_result(result: Mapping[str, Any], load: Load, settings: LoadSettings) -> None:
    """Print figures, then what failed, by kind."""
    print(" Serving Benchmark Result ".center(_WIDTH, "="))
    rows: list[tuple[str, Any]] = [
        ("Successful requests:", result["completed"]),
        ("Failed requests:", result["failed"]),
    ]
    if load.num_interrupted:
        rows.append(("Interrupted requests:", load.num_interrupted))
    if settings.max_concurrency is not None:
        rows.append(("Maximum request concurrency:", settings.max_concurrency))
    if settings.request_rate is not None:
        rows.append(("Request rate configured (RPS):", settings.request_rate))
    rows += [
        ("Benchmark duration (s):", result["duration"]),
        ("Total input tokens:", result["total_input_tokens"]),
        ("Total generated tokens:", result["total_output_tokens"]),
        ("Request throughput (req/s):", result["request_throughput"]),
    ]
    if settings.goodput_ms:
        rows.append(("Request goodput (req/s):", result["request_goodput"]))
    rows += [
        ("Output token throughput (tok/s):", result["output_throughput"]),
        ("Peak output token throughput (tok/s):", result["max_output_tokens_per_s"]),
        ("Peak concurrent requests:", result["max_concurrent_requests"]),
        ("Total token throughput (tok/s):", result["total_token_throughput"]),
    ]
    _print_rows(rows)
    for name in settings.metrics:
        short = name.upper()
        print(METRICS[name].center(_WIDTH, "-"))
        percentiles = [(f"P{p:g}", f"p{p:g}") for p in settings.percentiles]
        kinds = [("Mean", "mean"), ("Median", "median"), ("Std", "std"), *percentiles]
        _print_rows([(f"{word} {short} (ms):", result[f"{key}_{name}_ms"]) for word, key in kinds])
    print("=" * _WIDTH)
    errors = Counter(o.error for o in load.outcomes if o.error is not None)
    for error, count in errors.most_common(_MAX_ERRORS):
        print(f"{count} x {error}")
    if len(errors) > _MAX_ERRORS:
        print(f"and {len(errors) - _MAX_ERRORS} other errors")


def _print_rows(rows: list[tuple[str, Any]]) -> None:
    for name, value in rows:
        print(f"{name:<{_NAME_WIDTH}} {value:<10.2f}" if isinstance(value, float) else
              f"{name:<{_NAME_WIDTH}} {value:<10}")  # fmt: skip


def save_result(
    result: Mapping[str, Any], folder: Path, name: str | None, *, load: Load, detailed: bool
) -> Path:
    """Write the result, replacing a file of that name whole; returns where.

    Raises:
        OSError: it cannot be written.
    """
    if name is None:
        most = result["max_concurrency"]
        parts = (
            f"{result['label'] or result['backend']}-{result['request_rate']}qps",
            *([] if most is None else [f"concurrency{most}"]),
            Path(result["model_id"]).name,
            result["date"],
        )
        name = f"{'-'.join(parts)}.json"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {**result, **(details(load.outcomes) if detailed else {})}
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(values) + "\n", encoding="utf-8")
    draft.replace(path)
    return path
