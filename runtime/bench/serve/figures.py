"""What a run amounts to: result names and definitions of `vllm bench serve`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runtime.bench.serve.outcome import Outcome
from runtime.bench.serve.settings import LoadSettings

_MS = 1000.0


def summarise(
    outcomes: Sequence[Outcome], duration_s: float, settings: LoadSettings
) -> dict[str, Any]:
    """Figures of a run; metrics without a sample are 0, as that tool has them.

    Tokens are the server's own count (`usage`), prompts' too.
    """
    good = [outcome for outcome in outcomes if outcome.is_success]
    num_input = sum(outcome.prompt_len for outcome in good)
    num_output = sum(outcome.output_len for outcome in good)
    found: dict[str, Any] = {
        "duration": duration_s,
        "completed": len(good),
        "failed": len(outcomes) - len(good),
        "total_input_tokens": num_input,
        "total_output_tokens": num_output,
        "request_throughput": len(good) / duration_s,
        "request_goodput": None,
        "output_throughput": num_output / duration_s,
        "total_token_throughput": (num_input + num_output) / duration_s,
        "max_output_tokens_per_s": _busiest_second(good),
        "max_concurrent_requests": most_at_once(good),
    }
    if settings.goodput_ms:
        met = sum(is_good(outcome, settings.goodput_ms) for outcome in good)
        found["request_goodput"] = met / duration_s
    for name in settings.metrics:
        found |= _statistics(name, [s * _MS for s in samples(name, good)], settings.percentiles)
    return found


def samples(name: str, outcomes: Sequence[Outcome]) -> list[float]:
    """Seconds of a metric: one per request that has it, or one per gap between tokens."""
    match name:
        case "ttft":
            return [o.ttft_s for o in outcomes if o.ttft_s is not None]
        case "tpot":
            return [s for s in (o.tpot_s for o in outcomes) if s is not None]
        case "itl":
            return [s for o in outcomes for s in o.itl_s]
        case "e2el":
            return [o.latency_s for o in outcomes]
        case _:
            raise KeyError(name)


def is_good(outcome: Outcome, limits_ms: Mapping[str, float]) -> bool:
    """Whether a request that has ended met every limit; an answer of one token has TPOT 0."""
    took_s = {"ttft": outcome.ttft_s, "tpot": outcome.tpot_s, "e2el": outcome.latency_s}
    return all((took_s[name] or 0.0) * _MS <= limit for name, limit in limits_ms.items())


def most_at_once(outcomes: Sequence[Outcome]) -> int:
    """Requests that were with the server at the same time, at most."""
    changes = [(o.start_s, 1) for o in outcomes]
    changes += [(o.start_s + o.latency_s, -1) for o in outcomes]
    count = most = 0
    for _, change in sorted(changes):  # at equal times, those that leave come first
        count += change
        most = max(most, count)
    return most


def details(outcomes: Sequence[Outcome]) -> dict[str, list[Any]]:
    """One entry per request, for --save-detailed; failed ones have no times."""
    return {
        "input_lens": [o.prompt_len for o in outcomes],
        "output_lens": [o.output_len if o.is_success else 0 for o in outcomes],
        "ttfts": [o.ttft_s or 0.0 for o in outcomes],
        "itls": [o.itl_s for o in outcomes],
        "latencies": [o.latency_s for o in outcomes],
        "start_times": [o.start_s for o in outcomes],
        "queue_times": [o.queue_s for o in outcomes],
        "generated_texts": [o.text for o in outcomes],
        "errors": [o.error or "" for o in outcomes],
    }


def _statistics(name: str, values: Sequence[float], percentiles: Sequence[float]) -> dict[str, Any]:
    given = np.array(values or [0.0])
    found = {
        f"mean_{name}_ms": float(given.mean()),
        f"median_{name}_ms": float(np.median(given)),
        f"std_{name}_ms": float(given.std()),
    }
    for percentile in percentiles:
        found[f"p{percentile:g}_{name}_ms"] = float(np.percentile(given, percentile))
    return found


def _busiest_second(outcomes: Sequence[Outcome]) -> float:
    """Chunks with tokens in the fullest of the seconds since the first request."""
    if not outcomes:
        return 0.0
    first_s = min(outcome.start_s for outcome in outcomes)
    counts: dict[int, int] = {}
    for outcome in outcomes:
        now_s = outcome.start_s + (outcome.ttft_s or 0.0)
        for gap_s in (0.0, *outcome.itl_s):
            now_s += gap_s
            second = math.floor(now_s - first_s)
            counts[second] = counts.get(second, 0) + 1
    return float(max(counts.values()))
