"""`runtime bench serve`: its arithmetic, its errors, and runs against a server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import pytest
from live_server import LiveServer

from runtime.bench.serve.client import LoadClient
from runtime.bench.serve.figures import most_at_once, summarise
from runtime.bench.serve.outcome import Outcome
from runtime.bench.serve.prompts import Planned, plan_requests
from runtime.bench.serve.run import run_load, start_times
from runtime.bench.serve.settings import Dataset, LoadSettings
from runtime.cli import main
from runtime.errors import InvalidParameterError

URL = "http://127.0.0.1:1"


class WordCoder:
    """A word is a token, and its id the place where it was first seen."""

    def __init__(self) -> None:
        self.words: list[str] = []

    async def encode(self, text: str) -> list[int]:
        for word in text.split():
            if word not in self.words:
                self.words.append(word)
        return [self.words.index(word) for word in text.split()]

    async def decode(self, token_ids: Any) -> str:
        return " ".join(self.words[number] for number in token_ids)


def plan(dataset: Dataset, *, as_text: bool = False) -> list[Planned]:
    return asyncio.run(plan_requests(dataset, WordCoder(), as_text=as_text))


def test_arrivals() -> None:
    assert start_times(3, None, 1.0, 0) == [0.0, 0.0, 0.0]
    gaps = {}
    for burstiness in (0.25, 1.0, 100.0):
        times = start_times(2000, 50.0, burstiness, 0)
        assert times == sorted(times)
        assert times[-1] == pytest.approx(2000 / 50)
        gaps[burstiness] = [b - a for a, b in pairwise(times)]
        assert mean(gaps[burstiness]) == pytest.approx(1 / 50, rel=0.01)
    # A gamma distribution of shape k deviates by its mean / sqrt(k).
    for burstiness, found in gaps.items():
        assert pstdev(found) == pytest.approx(1 / 50 / burstiness**0.5, rel=0.15)
    assert start_times(5, 2.0, 1.0, 1) != start_times(5, 2.0, 1.0, 2)


def test_figures() -> None:
    outcomes = [
        Outcome(10, 100.0, 0.0, 0.5, [0.25, 0.75], 1.5, 5),
        Outcome(20, 100.2, 0.0, 0.1, [], 0.1, 1),
        Outcome(99, 100.0, error="HTTP 503: full"),
    ]
    settings = LoadSettings(
        URL,
        metrics=("ttft", "tpot", "itl", "e2el"),
        percentiles=(50.0, 99.9),
        goodput_ms={"ttft": 200, "tpot": 300},
    )
    found = summarise(outcomes, 2.0, settings)
    assert (found["completed"], found["failed"]) == (2, 1)
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (30, 6)
    assert found["request_throughput"] == 1.0
    assert found["output_throughput"] == 3.0
    assert found["total_token_throughput"] == 18.0
    # The first is too late with its first token; the second has one token, and TPOT 0.
    assert found["request_goodput"] == 0.5
    assert found["mean_ttft_ms"] == pytest.approx(300)
    assert found["std_ttft_ms"] == pytest.approx(200)
    assert found["mean_tpot_ms"] == pytest.approx(250), "one second over four tokens"
    assert found["median_itl_ms"] == pytest.approx(500)
    assert found["mean_e2el_ms"] == pytest.approx(800)
    assert found["p50_e2el_ms"] == pytest.approx(800)
    assert found["p99.9_ttft_ms"] == pytest.approx(100 + 0.999 * 400)
    assert found["max_concurrent_requests"] == 2
    # Chunks at 0.3, 0.5, 0.75 and 1.5 s.
    assert found["max_output_tokens_per_s"] == 3.0


def test_those_that_leave_make_room_first() -> None:
    assert most_at_once([Outcome(1, 0.0, latency_s=1.0), Outcome(1, 1.0, latency_s=1.0)]) == 1
    assert most_at_once([]) == 0


def test_no_answers_no_figures() -> None:
    found = summarise([Outcome(1, 0.0, error="x")], 1.0, LoadSettings(URL))
    assert (found["completed"], found["mean_ttft_ms"], found["request_goodput"]) == (0, 0.0, None)


def test_random_requests() -> None:
    dataset = Dataset(num_prompts=40, input_len=20, output_len=10, range_ratio=0.5, prefix_len=3)
    found = plan(dataset)
    assert found == plan(dataset)
    assert found != plan(Dataset(num_prompts=40, input_len=20, output_len=10, seed=1))
    assert {len(one.prompt) == one.prompt_len for one in found} == {True}
    lens = {one.prompt_len - 3 for one in found}
    assert min(lens) >= 10
    assert max(lens) <= 30
    assert len(lens) > 10
    assert {5 <= one.output_len <= 15 for one in found} == {True}
    assert len({one.prompt[:3] for one in found}) == 1
    (text,) = plan(Dataset(num_prompts=1, input_len=6), as_text=True)
    assert isinstance(text.prompt, str)
    assert len(text.prompt.split()) == 6
    assert text.output_len == 128


def test_requests_of_files(tmp_path: Path) -> None:
    path = tmp_path / "shared.json"
    turns = [{"from": "human", "value": "a b c d e"}, {"from": "gpt", "value": "f g h i"}]
    short = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "f g h i"}]
    path.write_text(
        json.dumps([{"conversations": turns}, {"conversations": short}, {"conversations": []}, 3])
    )
    found = plan(Dataset("sharegpt", path, num_prompts=2))
    assert found == [Planned("a b c d e", 5, 4)] * 2, "the usable one, again"
    assert plan(Dataset("sharegpt", path, 1, output_len=9))[0].output_len == 9
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"prompt": "x y"}\n\n{"prompt": "z", "output_tokens": 7}\n')
    found = plan(Dataset("custom", lines, num_prompts=2))
    assert found == [Planned("x y", 2, 256), Planned("z", 1, 7)]
    for text in ("{}", "[1]", "x", '{"prompt": "a", "output_tokens": 0}'):
        lines.write_text(text + "\n")
        with pytest.raises(InvalidParameterError, match=r"lines\.jsonl:1"):
            plan(Dataset("custom", lines))
    path.write_text("[]")
    with pytest.raises(InvalidParameterError, match="at least one usable request"):
        plan(Dataset("sharegpt", path))
    with pytest.raises(InvalidParameterError, match="dataset_path"):
        plan(Dataset("custom", tmp_path / "none"))


def bench(server: LiveServer, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = main(["bench", "serve", "--base-url", server.url, "--json", *words])
    return code, json.loads(capsys.readouterr().out)


SMALL = ("--num-prompts", "5", "--random-input-len", "9", "--random-output-len", "4")


def test_a_run(server: LiveServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before = server.metric("generation_tokens_total")
    code, found = bench(
        server, capsys, *SMALL, "--num-warmups", "1", "--request-rate", "100",
        "--max-concurrency", "2", "--goodput", "ttft:60000", "--metric-percentiles", "50,99.9",
        "--percentile-metrics", "ttft,e2el", "--metadata", "note=x", "--temperature", "0",
        "--save-result", "--save-detailed", "--result-dir", str(tmp_path / "new"),
        "--result-filename", "one.json",
    )  # fmt: skip
    assert code == 0
    assert (found["completed"], found["failed"]) == (5, 0)
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (45, 20)
    assert server.metric("generation_tokens_total") - before == 24, "and the warm-up"
    assert found["model_id"] == "tiny"
    assert found["request_goodput"] == found["request_throughput"] > 0
    assert found["max_concurrent_requests"] <= 2
    assert 0 < found["median_ttft_ms"] <= found["p99.9_ttft_ms"]
    assert found["median_ttft_ms"] < found["median_e2el_ms"]
    assert "mean_itl_ms" not in found
    assert (found["note"], found["request_rate"]) == ("x", 100.0)
    saved = json.loads((tmp_path / "new" / "one.json").read_text())
    assert found.items() <= saved.items()
    assert saved["output_lens"] == [4] * 5
    assert all(len(itl) <= 3 for itl in saved["itls"])
    assert saved["errors"] == [""] * 5
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["one.json"]


def test_conversations(server: LiveServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = bench(server, capsys, *SMALL, "--backend", "openai-chat")
    assert code == 0
    assert (found["completed"], found["total_output_tokens"]) == (5, 20)
    assert found["total_input_tokens"] > 45, "the template's tokens count"


def test_a_tokenizer_of_ones_own(
    server: LiveServer, served_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = bench(server, capsys, *SMALL, "--tokenizer", str(served_model))
    assert code == 0
    assert found["total_input_tokens"] == 45


def test_failures_are_counted_and_shown(
    server: LiveServer, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "serve", "--base-url", server.url, *SMALL, "--extra-body", '{"best_of": 2}']
    assert main(words) == 1
    out = capsys.readouterr().out
    assert "Failed requests:                         5" in out
    assert "5 x HTTP 400: " in out
    assert "best_of" in out


@contextmanager
def canned(body: bytes) -> Iterator[str]:
    """A server that streams these bytes to every POST."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}"
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join(10)


TOKEN = b'data: {"choices": [{"text": "a", "finish_reason": null}]}\n\n'
END = b'data: {"choices": [{"text": "", "finish_reason": "stop"}]}\n\n'


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (TOKEN + b'data: {"error": {"message": "the engine died"}}\n\n', "the engine died"),
        (TOKEN, "without a finish reason"),
        (b"data: [DONE]\n\n", "without a finish reason"),
        (TOKEN + b"data: {\n\n", "not JSON"),
        (TOKEN + b"data: 3\n\n", "no object"),
    ],
)
def test_broken_streams_fail(body: bytes, error: str) -> None:
    async def send(url: str) -> Outcome:
        client = LoadClient(LoadSettings(url), "m")
        try:
            return await client.send(Planned("x", 1, 1))
        finally:
            await client.close()

    with canned(body) as url:
        outcome = asyncio.run(send(url))
    assert outcome.error is not None
    assert error in outcome.error
    with canned(TOKEN + END + b"data: [DONE]\n\n") as url:
        whole = asyncio.run(send(url))
    assert (whole.error, whole.text, len(whole.itl_s)) == (None, "a", 1)


def test_interrupted_runs_keep_what_is_done(server: LiveServer) -> None:
    settings = LoadSettings(
        server.url,
        dataset=Dataset(num_prompts=20, input_len=3, output_len=2),
        max_concurrency=1,
        ignore_eos=True,
    )

    def tick(count: int, _: int) -> None:
        if count == 3:
            os.kill(os.getpid(), signal.SIGINT)

    load = asyncio.run(run_load(settings, lambda _: None, tick))
    assert 3 <= len(load.outcomes) <= 4
    assert load.num_interrupted == 20 - len(load.outcomes)
    assert all(outcome.is_success for outcome in load.outcomes)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--request-rate", "0"], "request_rate"),
        (["--burstiness", "-1"], "burstiness"),
        (["--max-concurrency", "0"], "max_concurrency"),
        (["--num-prompts", "0"], "num_prompts"),
        (["--random-range-ratio", "1"], "random_range_ratio"),
        (["--percentile-metrics", "ttft,x"], "ttft, tpot, itl, e2el"),
        (["--metric-percentiles", "101"], "metric_percentiles"),
        (["--metric-percentiles", "a"], "metric_percentiles"),
        (["--goodput", "itl:3"], "goodput"),
        (["--dataset-name", "custom"], "dataset_path"),
        (["--dataset-path", "x"], "dataset_path"),
        (["--endpoint", "/v1/embeddings"], "endpoint"),
        (["--base-url", "localhost:8000"], "base_url"),
    ],
)
def test_bad_options(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "serve", *words]) == 2
    assert named in capsys.readouterr().err


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "serve", "--base-url", URL]) == 1
    assert f"{URL}/v1/models" in capsys.readouterr().err


def test_bench_of_a_model_is_still_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(tmp_path / "no-model")]) == 2
    assert "no-model" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench", "serve", "--help"])
    assert "--request-rate" in capsys.readouterr().out
