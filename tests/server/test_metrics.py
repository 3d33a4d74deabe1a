"""Metrics mean what vLLM's names say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from live_server import LiveServer, served, wait_until
from prometheus_client.parser import text_string_to_metric_families

NAMES = {
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_perc",
    "prefix_cache_queries",
    "prefix_cache_hits",
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
    "request_success",
    "admission_rejections",
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "iteration_tokens_total",
}


def test_names_and_counts(served_model: Path) -> None:
    with served(served_model, {"metrics_prefix": "vllm"}) as server:
        prompt = [5] * 50
        answers = [server.complete(prompt, max_tokens=8, ignore_eos=True).json() for _ in range(2)]
        server.complete([6] * 10, max_tokens=4, n=2, ignore_eos=True, stream=True)
        server.complete([6] * 10, max_tokens=1, stop_token_ids=[300], logit_bias={"300": 100})
        page = server.get("/metrics")
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        families = {f.name: f for f in text_string_to_metric_families(page.text)}
        assert {f"vllm:{name}" for name in NAMES} <= families.keys()
        for family in families.values():
            for sample in family.samples:
                assert sample.labels["model_name"] == "tiny"
        assert server.metric("prompt_tokens_total") == 120
        assert server.metric("generation_tokens_total") == 8 + 8 + 2 * 4 + 1
        assert server.metric("request_success_total", finished_reason="length") == 3
        assert server.metric("request_success_total", finished_reason="stop") == 1
        # The second prompt found three full blocks of the first, and said so.
        assert server.metric("prefix_cache_hits_total") == 48
        assert server.metric("prefix_cache_queries_total") == 120
        cached = [a["usage"]["prompt_tokens_details"]["cached_tokens"] for a in answers]
        assert cached == [0, 48]
        for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds"):
            assert server.metric(f"{name}_count") == 4
        assert server.metric("request_queue_time_seconds_count") == 4
        assert server.metric("inter_token_latency_seconds_count") == 7 + 7 + 2 * 3
        assert server.metric("request_time_per_output_token_seconds_count") == 3
        # Every token is computed once but the last of each sequence, and the cached ones.
        assert server.metric("iteration_tokens_total_sum") == (50 + 7) + (2 + 7) + (10 + 6) + 10
        first = server.metric("time_to_first_token_seconds_sum")
        assert 0 < first <= server.metric("e2e_request_latency_seconds_sum")


def test_gauges_follow_the_engine(served_model: Path) -> None:
    with served(served_model, max_num_seqs=2) as server, ThreadPoolExecutor(3) as pool:
        server.engine.pause_s = 0.01
        for _ in range(3):
            pool.submit(server.complete, max_tokens=200, ignore_eos=True)
        wait_until(lambda: server.metric("num_requests_running") == 2)
        wait_until(lambda: server.metric("num_requests_waiting") == 1)
        assert 0 < server.metric("kv_cache_usage_perc") < 1
        server.engine.pause_s = 0
        wait_until(lambda: server.metric("num_requests_running") == 0, 60)
        assert server.metric("kv_cache_usage_perc") == 0
        assert server.metric("num_requests_waiting") == 0


@pytest.mark.parametrize("salt", ["a", None])
def test_prefixes_are_shared_within_a_salt_only(server: LiveServer, salt: str | None) -> None:
    ids = [100 + (salt is None), *range(40)]
    fields = {"max_tokens": 1} if salt is None else {"max_tokens": 1, "cache_salt": salt}

    def cached(**more: str) -> int:
        usage = server.complete(ids, **{**fields, **more}).json()["usage"]
        found: int = usage["prompt_tokens_details"]["cached_tokens"]
        return found

    assert [cached(), cached()] == [0, 32]
    assert cached(cache_salt="other") == 0
