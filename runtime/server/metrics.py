"""Prometheus metrics by vLLM's names, with a prefix of the operator's choice."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from runtime.server.messages import Advance, EngineGauges, Refusal, Refused, Step, Submit

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
           10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)  # fmt: skip
_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
            10.0, 20.0, 40.0, 80.0)  # fmt: skip
_REQUEST_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
              120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0)  # fmt: skip
_STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)


@dataclass(slots=True)
class _Trace:
    """Times of one engine request, on CLOCK_MONOTONIC."""

    num_prompt_tokens: int
    submitted_s: float
    started_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    num_tokens: int = 0
    last_by_index: dict[int, float] = field(default_factory=dict)
    finish_reasons: list[str] = field(default_factory=list)


class ServerMetrics:
    """An `Observer` of the engine's traffic, and the page that Prometheus reads."""

    def __init__(self, prefix: str, model_name: str) -> None:
        self.registry = CollectorRegistry()
        self._prefix = prefix
        self._model = model_name
        self._traces: dict[str, _Trace] = {}
        self._gauges = EngineGauges()
        gauge, counter = self._gauge, self._counter
        self._running = gauge("num_requests_running", "Sequences that run.")
        self._waiting = gauge("num_requests_waiting", "Sequences that wait or are swapped out.")
        self._usage = gauge("kv_cache_usage_perc", "Share of KV blocks in use; 1 is all.")
        self._prefix_queries = counter("prefix_cache_queries", "Tokens looked up in the cache.")
        self._prefix_hits = counter("prefix_cache_hits", "Tokens found in the cache.")
        self._preemptions = counter("num_preemptions", "Sequences that lost their blocks.")
        self._prompt_tokens = counter("prompt_tokens", "Prompt tokens computed or found cached.")
        self._output_tokens = counter("generation_tokens", "Tokens generated.")
        self._success = Counter(
            f"{prefix}:request_success",
            "Requests that ended by themselves, by reason.",
            ("model_name", "finished_reason"),
            registry=self.registry,
        )
        self._rejections = Counter(
            f"{prefix}:admission_rejections",
            "Requests that were not taken, by reason.",
            ("model_name", "reason"),
            registry=self.registry,
        )
        histogram = self._histogram
        self._first_token = histogram("time_to_first_token_seconds", "", _TTFT_S)
        self._between = histogram("inter_token_latency_seconds", "", _TOKEN_S)
        self._per_token = histogram(
            "request_time_per_output_token_seconds", "Mean of a request, after its first.", _TOKEN_S
        )
        self._whole = histogram("e2e_request_latency_seconds", "", _REQUEST_S)
        self._queue = histogram("request_queue_time_seconds", "Until the first turn.", _REQUEST_S)
        self._prefill = histogram(
            "request_prefill_time_seconds", "From the first turn to the first token.", _REQUEST_S
        )
        self._decode = histogram(
            "request_decode_time_seconds", "From the first token to the last.", _REQUEST_S
        )
        self._step_tokens = histogram("iteration_tokens_total", "Tokens of a step.", _STEP_TOKENS)
        self._prompt_lengths = histogram("request_prompt_tokens", "", _LENGTHS)
        self._output_lengths = histogram("request_generation_tokens", "", _LENGTHS)

    def page(self) -> bytes:
        """The exposition, in Prometheus' text format."""
        return generate_latest(self.registry)

    def totals(self) -> Mapping[str, float]:
        """Samples by name without the prefix, summed over their labels."""
        found: defaultdict[str, float] = defaultdict(float)
        for family in self.registry.collect():
            for sample in family.samples:
                found[sample.name.removeprefix(f"{self._prefix}:")] += sample.value
        return found

    def reject(self, reason: str) -> None:
        """Count a request that was not taken."""
        self._rejections.labels(self._model, reason).inc()

    # ---- what an Observer hears -----------------------------------------------------------------

    def submitted(self, submit: Submit) -> None:
        """Start the clock of a request."""
        trace = _Trace(len(submit.prompt_token_ids), time.monotonic())
        self._traces[submit.request_id] = trace

    def refused(self, refused: Refused) -> None:
        """Forget a request, and count the refusal."""
        self._traces.pop(refused.request_id, None)
        is_full = refused.refusal is Refusal.QUEUE_FULL
        self.reject("queue_full" if is_full else "invalid")

    def dropped(self, request_ids: Sequence[str]) -> None:
        """Forget requests, and count them as aborted."""
        for request_id in request_ids:
            if self._traces.pop(request_id, None) is not None:
                self._success.labels(self._model, "abort").inc()

    def stepped(self, step: Step) -> None:
        """Take a step's counts, and the times of its requests."""
        now_s = time.monotonic()
        self._take_gauges(step.gauges)
        if step.num_tokens:
            self._step_tokens.observe(step.num_tokens)
        for request_id in step.started:
            trace = self._traces.get(request_id)
            if trace is not None:
                trace.started_s = step.start_s
                self._queue.observe(max(0.0, step.start_s - trace.submitted_s))
        for advance in step.advances:
            trace = self._traces.get(advance.request_id)
            if trace is not None:
                self._advance(trace, advance, now_s)
        for request_id, _ in step.failed:
            if self._traces.pop(request_id, None) is not None:
                self._success.labels(self._model, "error").inc()

    def _advance(self, trace: _Trace, advance: Advance, now_s: float) -> None:
        num_tokens = sum(delta.num_tokens for delta in advance.deltas)
        if num_tokens and trace.first_token_s is None:
            trace.first_token_s = now_s
            self._first_token.observe(now_s - trace.submitted_s)
            self._prompt_tokens.inc(trace.num_prompt_tokens)
            if trace.started_s is not None:
                self._prefill.observe(max(0.0, now_s - trace.started_s))
        for delta in advance.deltas:
            before_s = trace.last_by_index.get(delta.index)
            if delta.num_tokens:
                trace.last_by_index[delta.index] = now_s
                if before_s is not None:
                    self._between.observe((now_s - before_s) / delta.num_tokens)
            if delta.finish_reason is not None:
                trace.finish_reasons.append(delta.finish_reason)
        trace.num_tokens += num_tokens
        self._output_tokens.inc(num_tokens)
        if advance.finished:
            del self._traces[advance.request_id]
            self._finish(trace, now_s)

    def _finish(self, trace: _Trace, now_s: float) -> None:
        self._success.labels(self._model, _worst(trace.finish_reasons)).inc()
        self._whole.observe(now_s - trace.submitted_s)
        self._prompt_lengths.observe(trace.num_prompt_tokens)
        self._output_lengths.observe(trace.num_tokens)
        if trace.first_token_s is not None:
            decode_s = now_s - trace.first_token_s
            self._decode.observe(decode_s)
            per_sequence = trace.num_tokens / max(1, len(trace.last_by_index))
            if per_sequence > 1:
                self._per_token.observe(decode_s / (per_sequence - 1))

    def _take_gauges(self, gauges: EngineGauges) -> None:
        before, self._gauges = self._gauges, gauges
        self._running.set(gauges.num_running)
        self._waiting.set(gauges.num_waiting)
        self._usage.set(gauges.num_used_blocks / max(1, gauges.num_usable_blocks))
        self._preemptions.inc(gauges.num_preemptions - before.num_preemptions)
        self._prefix_queries.inc(gauges.num_prefix_queries - before.num_prefix_queries)
        self._prefix_hits.inc(gauges.num_prefix_hits - before.num_prefix_hits)

    def _gauge(self, name: str, text: str) -> Gauge:
        full = f"{self._prefix}:{name}"
        return Gauge(full, text, ("model_name",), registry=self.registry).labels(self._model)

    def _counter(self, name: str, text: str) -> Counter:
        full = f"{self._prefix}:{name}"
        return Counter(full, text, ("model_name",), registry=self.registry).labels(self._model)

    def _histogram(self, name: str, text: str, buckets: Iterable[float]) -> Histogram:
        words = text or f"{name.replace('_', ' ').capitalize()}."
        full = f"{self._prefix}:{name}"
        return Histogram(
            full, words, ("model_name",), buckets=tuple(buckets), registry=self.registry
        ).labels(self._model)


def _worst(reasons: Sequence[str]) -> str:
    """One reason for a request of several sequences: "length" if any was cut off."""
    return "length" if "length" in reasons else next(iter(reasons), "stop")
