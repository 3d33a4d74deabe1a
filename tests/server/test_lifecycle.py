"""Processes begin and end as they should, whoever is killed, and none is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import wait_until
from server_process import HERE, ROOT, Process, is_gone


@pytest.fixture
def start() -> Iterator[Any]:
    started: list[Process] = []

    def begin(timeout_s: float = 0, mode: str = "", port: int = 0) -> Process:
        words = [str(HERE / "serve_fake.py"), str(timeout_s), str(port)]
        started.append(Process(words, FAKE_ENGINE=mode))
        return started[-1]

    yield begin
    for process in started:
        process.close()


class Asked(threading.Thread):
    """A request under way."""

    def __init__(self, url: str, max_tokens: int, *, stream: bool = False) -> None:
        super().__init__(daemon=True)
        self._body = {"prompt": [5], "max_tokens": max_tokens, "stream": stream}
        self._url = url
        self.answer: httpx.Response | None = None
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = httpx.post(f"{self._url}/v1/completions", json=self._body, timeout=60)
        except httpx.HTTPError as error:
            self.error = error

    def result(self) -> httpx.Response:
        self.join(30)
        assert self.answer is not None, self.error
        return self.answer


def running(url: str) -> float:
    page = httpx.get(f"{url}/metrics").text
    found = re.search(r"^pagetune:num_requests_running\S* (\S+)", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_sigterm_drains(start: Any) -> None:
    process = start(20)
    url, engine = process.url(), process.engine()
    asked = [Asked(url, 75), Asked(url, 75, stream=True)]
    wait_until(lambda: running(url) == 2)
    process.child.send_signal(signal.SIGTERM)
    wait_until(lambda: "shutting down" in process.output)
    late = httpx.post(f"{url}/v1/completions", json={"prompt": [5]})
    health = httpx.get(f"{url}/health")
    assert (late.status_code, health.status_code) == (503, 503)
    assert asked[0].result().json()["usage"]["completion_tokens"] == 75
    assert asked[1].result().text.endswith("data: [DONE]\n\n")
    assert "error" not in asked[1].result().text
    assert process.child.wait(20) == 0
    wait_until(lambda: is_gone(engine))


def test_sigterm_aborts_when_the_time_is_over(start: Any) -> None:
    process = start(0.3)
    url, engine = process.url(), process.engine()
    asked = [Asked(url, 900), Asked(url, 900, stream=True)]
    wait_until(lambda: running(url) == 2)
    begin_s = time.monotonic()
    process.child.send_signal(signal.SIGTERM)
    assert asked[0].result().status_code == 503
    assert '"error"' in asked[1].result().text
    assert asked[1].result().text.endswith("data: [DONE]\n\n")
    assert process.child.wait(20) == 0
    assert time.monotonic() - begin_s < 10
    wait_until(lambda: is_gone(engine))


def test_interrupts(start: Any) -> None:
    once, twice = start(0), start(60)
    url = once.url()
    engines = [once.engine(), twice.engine()]
    assert httpx.get(f"{url}/health").status_code == 200
    once.child.send_signal(signal.SIGINT)
    assert once.child.wait(20) == 130
    asked = Asked(twice.url(), 900)
    wait_until(lambda: running(twice.url()) == 1)
    twice.child.send_signal(signal.SIGINT)
    wait_until(lambda: "shutting down" in twice.output)
    assert twice.child.poll() is None
    twice.child.send_signal(signal.SIGINT)
    assert twice.child.wait(5) == 130
    asked.join(20)
    wait_until(lambda: all(map(is_gone, engines)))


@pytest.mark.parametrize("mode", ["", "hangs"])
def test_the_engine_dies_with_the_server(start: Any, mode: str) -> None:
    process = start(0, mode)
    url, engine = process.url(), process.engine()
    asked = Asked(url, 900)
    if not mode:
        wait_until(lambda: running(url) == 1)
    process.child.kill()
    wait_until(lambda: is_gone(engine), 10)
    asked.join(20)
    assert asked.error is not None


def test_a_killed_client_leaves_nothing(start: Any) -> None:
    process = start(0)
    url = process.url()
    body = json.dumps({"prompt": [5], "max_tokens": 900, "stream": True})
    code = (
        "import urllib.request as u, sys\n"
        f"r = u.Request({url + '/v1/completions'!r}, {body.encode()!r},"
        " {'content-type': 'application/json'})\n"
        "for line in u.urlopen(r): print(line, flush=True)"
    )
    clients = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(3)
    ]
    for client in clients:
        assert client.stdout is not None
        assert client.stdout.readline()
    assert running(url) == 3
    for client in clients:
        client.kill()
        client.wait(20)
        assert client.stdout is not None
        client.stdout.close()
    wait_until(lambda: running(url) == 0)
    assert Asked(url, 2).result().status_code == 200


def test_a_killed_server_keeps_no_port(start: Any) -> None:
    first = start(0)
    url, engine = first.url(), first.engine()
    asked = Asked(url, 900, stream=True)
    wait_until(lambda: running(url) == 1)
    first.child.kill()
    first.child.wait(20)
    wait_until(lambda: is_gone(engine), 10)
    second = start(0, "", int(url.rpartition(":")[2]))
    assert second.url() == url
    asked.join(20)
    assert Asked(url, 2).result().status_code == 200


def test_the_server_ends_with_the_engine(start: Any) -> None:
    process = start(20)
    url, engine = process.url(), process.engine()
    asked = [Asked(url, 900), Asked(url, 900, stream=True)]
    wait_until(lambda: running(url) == 2)
    os.kill(engine, signal.SIGKILL)
    assert asked[0].result().status_code == 500
    assert '"error"' in asked[1].result().text
    assert httpx.get(f"{url}/health").status_code == 503
    assert process.child.wait(20) == 1
    assert "engine process has died" in process.output


def test_a_model_that_cannot_be_loaded(start: Any) -> None:
    refused, dead = start(0, "refuses"), start(0, "dies")
    assert refused.child.wait(30) == 2
    assert dead.child.wait(30) == 1
    wait_until(lambda: "no such model" in refused.output and "died while" in dead.output)


def test_told_to_end_while_loading(start: Any) -> None:
    process = start(20, "loads")
    engine = process.engine()
    wait_until(lambda: Path(f"/proc/{engine}/environ").read_bytes() != b"")
    time.sleep(0.5)
    process.child.send_signal(signal.SIGTERM)
    assert process.child.wait(20) == 0
    wait_until(lambda: is_gone(engine))


def test_a_port_in_use_is_said(start: Any) -> None:
    url = start(0).url()
    port = url.rpartition(":")[2]
    command = [sys.executable, "-m", "runtime", "serve", "no-such-model", "--port", port]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert found.returncode == 2
    assert f"port={port}" in found.stderr


def test_the_real_thing(served_model: Path, tmp_path: Path) -> None:
    """The command itself, with options from a file: starts, answers, and dies with its parent."""
    config = tmp_path / "server.yaml"
    config.write_text(
        f"model: {served_model}\nport: 1\nserved-model-name: [a, b]\nmax_num_seqs: 4\n"
        "kv-cache-gib: 0.01\napi-key: [from-file]\n"
    )
    words = ["-m", "runtime", "serve", "--config", str(config), "--port", "0"]
    process = Process(words, OMP_NUM_THREADS="1", PAGETUNE_API_KEY="from-variable")
    try:
        url, engine = process.url(180), process.engine()
        for word in ("model ", "device ", "KV cache ", "kernels ", "at most 4 sequences"):
            assert word in process.output
        environment = Path(f"/proc/{engine}/environ").read_bytes()
        assert b"from-variable" not in environment
        for key in ("from-file", "from-variable"):
            headers = {"authorization": f"Bearer {key}"}
            body = {"model": "b", "prompt": "once upon", "max_tokens": 5}
            answer = httpx.post(f"{url}/v1/completions", json=body, headers=headers, timeout=60)
            assert answer.status_code == 200
            assert answer.json()["model"] == "a"
        process.child.kill()
        wait_until(lambda: is_gone(engine), 10)
    finally:
        process.close()
