"""What clients and luck do to a server: they leave, they dawdle, they come all at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import LiveServer, events, served, wait_until

from runtime.scheduler_config import SchedulingPolicy

LONG: dict[str, Any] = {"prompt": "once upon", "max_tokens": 1500, "ignore_eos": True}


@pytest.fixture(scope="module")
def busy(served_model: Path) -> Iterator[LiveServer]:
    """Few seats, a short queue, and room for two long sequences."""
    with served(
        served_model,
        {"stall_timeout_s": 0.3},
        max_num_seqs=4,
        max_queue_len=6,
        num_blocks=260,
        max_num_batched_tokens=64,
    ) as found:
        yield found


@pytest.fixture(autouse=True)
def left_as_found(busy: LiveServer) -> Iterator[None]:
    yield
    busy.engine.may_step.set()
    busy.engine.pause_s = 0
    busy.engine.before_step = None
    wait_until(lambda: not busy.engine.has_unfinished and busy.front.client.num_live == 0)
    assert busy.used_blocks() == 0
    busy.engine.scheduler.check_integrity()
    assert busy.complete(max_tokens=1).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_client_that_leaves_is_aborted_within_a_step(
    busy: LiveServer, path: str, stream: bool
) -> None:
    body: dict[str, Any] = {"max_tokens": 1500, "ignore_eos": True, "stream": stream, "n": 2}
    chat = [{"role": "user", "content": "x"}]
    body |= {"messages": chat} if "chat" in path else {"prompt": ["a", "b"]}
    busy.engine.pause_s = 0.02
    with busy.send_raw(path, body) as connection:
        wait_until(lambda: busy.engine.num_steps > 3 and busy.used_blocks() > 0)
        if stream:
            assert connection.recv(10)
    # Once the front end has seen the end of the connection, one more step may be under way.
    wait_until(lambda: busy.front.client.num_live == 0)
    before = busy.engine.num_steps
    wait_until(lambda: busy.used_blocks() == 0)
    assert busy.engine.num_steps - before <= 2
    busy.engine.pause_s = 0


def test_a_client_that_leaves_while_waiting(busy: LiveServer) -> None:
    busy.engine.may_step.clear()
    connections = [busy.send_raw("/v1/completions", LONG) for _ in range(3)]
    wait_until(lambda: busy.front.client.num_live == 3)
    for connection in connections:
        connection.close()
    wait_until(lambda: busy.front.client.num_live == 0)


def test_a_reader_that_stops_is_given_up(busy: LiveServer) -> None:
    """Once the kernel's buffers are full, the request is aborted, and holds no block."""
    before = busy.metric("request_success_total", finished_reason="abort")
    # Megabytes at once: every prompt token with twenty others, four times.
    fields = {**LONG, "prompt": [7] * 800, "echo": True, "logprobs": 20, "n": 4, "stream": True}
    fields["max_tokens"] = 1000
    with busy.send_raw("/v1/completions", fields, receive_bytes=2048) as connection:
        assert connection.recv(10)
        wait_until(lambda: busy.front.client.num_live == 0, 60)
    assert busy.metric("request_success_total", finished_reason="abort") == before + 1


def test_a_slow_reader_gets_everything_in_fewer_pieces(busy: LiveServer) -> None:
    whole = busy.complete(**{**LONG, "max_tokens": 60, "temperature": 0}).json()
    body = {**LONG, "max_tokens": 60, "temperature": 0, "stream": True, "logprobs": 0}
    with httpx.stream("POST", f"{busy.url}/v1/completions", json=body, timeout=60) as answer:
        text = answer.read().decode()
    chunks = events(text)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["choices"][0]["text"]
    tokens = [chunk["choices"][0]["logprobs"]["tokens"] for chunk in chunks]
    assert sum(map(len, tokens)) == 60


def test_a_full_queue_answers_503_with_retry_after(busy: LiveServer) -> None:
    busy.engine.may_step.clear()
    before = busy.metric("admission_rejections_total", reason="queue_full")
    body = {**LONG, "max_tokens": 4}
    with ThreadPoolExecutor(30) as pool:
        answers = [pool.submit(busy.complete, **body) for _ in range(30)]
        wait_until(lambda: sum(answer.done() for answer in answers) >= 20)
        early = [answer.result() for answer in answers if answer.done()]
        assert {answer.status_code for answer in early} == {503}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in early)
        assert early[0].json()["error"]["type"] == "ServiceUnavailableError"
        busy.engine.may_step.set()
        late = [answer.result() for answer in answers]
    accepted = [answer for answer in late if answer.status_code == 200]
    refused = [answer for answer in late if answer.status_code == 503]
    assert len(accepted) + len(refused) == 30
    assert len(accepted) >= 6
    assert all(answer.json()["usage"]["completion_tokens"] == 4 for answer in accepted)
    assert busy.metric("admission_rejections_total", reason="queue_full") - before == len(refused)


def test_many_more_than_fit_all_finish_or_are_refused(served_model: Path) -> None:
    """Ten times the pool; what is admitted finishes, by preemption where it must."""
    with (
        served(served_model, num_blocks=10, max_num_seqs=4, max_queue_len=8) as tight,
        ThreadPoolExecutor(16) as pool,
    ):
        fields = {"max_tokens": 60, "ignore_eos": True}
        answers = list(pool.map(lambda _: tight.complete("once upon", **fields), range(16)))
        assert {answer.status_code for answer in answers} <= {200, 503}
        done = [answer.json() for answer in answers if answer.status_code == 200]
        assert len(done) >= 8
        assert all(answer["usage"]["completion_tokens"] == 60 for answer in done)
        assert tight.used_blocks() == 0


def test_what_can_never_fit_is_refused_at_once(busy: LiveServer, served_model: Path) -> None:
    ids = [5] * 2047
    assert busy.complete(ids, max_tokens=1).status_code == 200
    found = busy.complete([5] * 2048, max_tokens=1)
    assert (found.status_code, found.json()["error"]["param"]) == (400, "prompt")
    found = busy.complete(ids, max_tokens=2)
    assert (found.status_code, found.json()["error"]["param"]) == (400, "max_tokens")
    found = busy.complete("x", n=5)  # more than the seats
    assert found.status_code == 400
    with served(served_model, num_blocks=4) as small:
        found = small.complete([5] * 64, max_tokens=1)
        assert found.status_code == 400
        assert "KV cache" in found.json()["error"]["message"]


def test_an_error_of_one_request_ends_that_one_alone(
    busy: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = busy.engine.tokenizer
    assert tokenizer is not None
    decode = tokenizer.decode

    num_seen = 0

    def fail_on_298(ids: list[int], *, skip_special_tokens: bool) -> str:
        nonlocal num_seen
        num_seen += 298 in ids
        if num_seen > 20 and 298 in ids:
            raise RuntimeError("a planted error, with /a/path in it")
        return decode(ids, skip_special_tokens=skip_special_tokens)

    fields: dict[str, Any] = {"max_tokens": 40, "temperature": 0, "ignore_eos": True}
    fields["logit_bias"] = {"298": -100}
    alone = busy.complete(**fields).json()
    monkeypatch.setattr(tokenizer, "decode", fail_on_298)
    bad: dict[str, Any] = {
        "prompt": "dog",
        "max_tokens": 90,
        "ignore_eos": True,
        "logit_bias": {"298": 100},
    }
    with ThreadPoolExecutor(3) as pool:
        good = pool.submit(busy.complete, **fields)
        whole = pool.submit(busy.complete, **bad)
        streamed = pool.submit(busy.complete, **bad, stream=True)
    assert good.result().json()["choices"] == alone["choices"]
    assert whole.result().status_code == 500
    assert streamed.result().status_code == 200
    last = events(streamed.result().text)[-1]
    assert last["error"]["code"] == 500
    for text in (whole.result().text, streamed.result().text):
        assert "planted" not in text
    assert busy.metric("request_success_total", finished_reason="error") == 2


def test_long_prompts_do_not_hold_up_short_ones(served_model: Path) -> None:
    with (
        served(
            served_model, max_num_batched_tokens=64, long_prefill_token_threshold=32, num_blocks=600
        ) as fair,
        ThreadPoolExecutor(1) as pool,
    ):
        fair.engine.pause_s = 0.01
        slow = pool.submit(fair.complete, [7] * 1900, max_tokens=1)
        wait_until(lambda: fair.engine.num_steps > 2)
        assert fair.complete("hi", max_tokens=2).status_code == 200
        assert not slow.done()
        fair.engine.pause_s = 0
        assert slow.result().status_code == 200


def test_priorities_are_honoured(served_model: Path) -> None:
    order: list[int] = []
    lock = threading.Lock()
    with (
        served(served_model, max_num_seqs=1, policy=SchedulingPolicy.PRIORITY) as ranked,
        ThreadPoolExecutor(4) as pool,
    ):
        ranked.engine.may_step.clear()

        def ask(priority: int) -> None:
            assert ranked.complete(max_tokens=3, priority=priority).status_code == 200
            with lock:
                order.append(priority)

        for number, priority in enumerate((0, 3, -2, 1)):
            pool.submit(ask, priority)
            wait_until(lambda count=number + 1: ranked.front.client.num_live == count)
        ranked.engine.may_step.set()
    # The first may have had its seat before the others came.
    assert [priority for priority in order if priority] == [-2, 1, 3]


def test_priorities_are_refused_where_they_mean_nothing(busy: LiveServer) -> None:
    found = busy.complete(priority=1)
    assert (found.status_code, found.json()["error"]["param"]) == (400, "priority")
    assert busy.complete(priority=0, max_tokens=1).status_code == 200


def test_queued_tokens_are_bounded(served_model: Path) -> None:
    with (
        served(served_model, {"max_num_queued_tokens": 350}, max_num_seqs=1) as bounded,
        ThreadPoolExecutor(4) as pool,
    ):
        bounded.engine.pause_s = 0.05
        ids = [5] * 300
        first = pool.submit(bounded.complete, ids, max_tokens=20, ignore_eos=True)
        wait_until(lambda: bounded.used_blocks() > 0)
        second = pool.submit(bounded.complete, ids, max_tokens=1)
        wait_until(lambda: bounded.front.client.gauges.num_waiting == 1)
        third = bounded.complete(ids, max_tokens=1)
        assert third.status_code == 503
        assert "tokens are waiting" in third.json()["error"]["message"]
        bounded.engine.pause_s = 0
        assert first.result().status_code == second.result().status_code == 200
        # An empty queue takes even a prompt beyond the bound.
        assert bounded.complete([5] * 400, max_tokens=1).status_code == 200
