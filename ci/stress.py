"""Many short requests, many at once, many clients that leave: nothing may be lost or left behind.

    python ci/stress.py                     50,000 requests
    python ci/stress.py --seconds 180       as many as fit

It starts `runtime serve` on a tiny random model, keeps 256 connections busy, and hangs up on one in
ten at a random moment. It fails if an answer is missing or wrong, if a KV block stays held, if the
processes' memory grows by more than 50 MB after the warm-up, or if one of them is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "engine"), str(ROOT / "tests" / "server")]

MAX_GROWTH_MB = 50
WARM_UP_REQUESTS = 5000
WARM_UP_SHARE = 1 / 3
"""Memory is measured first after so many requests, or this share of a shorter run."""


@dataclass
class Tally:
    """What has happened."""

    finished: int = 0
    left: int = 0
    retried: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Requests that have come to their end."""
        return self.finished + self.left + len(self.problems)


def main() -> int:
    """Run; 0 if all held."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, help="stop after this, however many were sent")
    parser.add_argument("--streams", type=int, default=256, help="at once")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from live_server import save_served_model

    with tempfile.TemporaryDirectory() as folder:
        save_served_model(Path(folder))
        server = subprocess.Popen(
            [sys.executable, "-m", "runtime", "serve", folder, "--port", "0", "--max-num-seqs",
             "64", "--max-num-queued-reqs", "256", "--served-model-name", "tiny"],
            cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            return _judge(server, options)
        finally:
            server.kill()
            server.wait()


def _judge(server: subprocess.Popen[str], options: argparse.Namespace) -> int:
    assert server.stderr is not None
    url = ""
    for line in server.stderr:
        print(line, end="")
        found = re.match(r"ready +http://(\S+)", line)
        if found:
            url = found[1]
            break
    assert url, "the server did not start"
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    pids = [server.pid, *map(int, children)]
    tally = Tally()
    start_s = time.monotonic()
    growth_mb = asyncio.run(_run(url, options, tally, pids))
    seconds = time.monotonic() - start_s
    time.sleep(1)
    page = urllib.request.urlopen(f"http://{url}/metrics").read().decode()
    gauges = {
        name: float(re.search(rf"^pagetune:{name}\{{.*\}} (\S+)", page, re.MULTILINE)[1])  # type: ignore[index]
        for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    }
    server.send_signal(signal.SIGTERM)
    code = server.wait(30)
    left_behind = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    report = {
        "requests": tally.total,
        "finished": tally.finished,
        "left_early": tally.left,
        "refused_and_retried": tally.retried,
        "lost": len(tally.problems),
        "seconds": round(seconds, 1),
        "requests_per_s": round(tally.total / seconds, 1),
        "growth_mb": {name: round(value, 1) for name, value in growth_mb.items()},
        "at_the_end": gauges,
        "exit_code": code,
        "left_behind": left_behind,
    }
    print(json.dumps(report, indent=1))
    for problem in tally.problems[:10]:
        print(problem)
    holds = (
        not tally.problems
        and not any(gauges.values())
        and sum(growth_mb.values()) <= MAX_GROWTH_MB
        and code == 0
        and not left_behind
    )
    print("ok" if holds else "FAILED")
    return 0 if holds else 1


async def _run(
    url: str, options: argparse.Namespace, tally: Tally, pids: list[int]
) -> dict[str, float]:
    host, port = url.split(":")
    end_s = None if options.seconds is None else time.monotonic() + options.seconds
    start_s = time.monotonic()
    before: list[float] = []
    numbers = iter(range(options.requests))

    def progress() -> float:
        if end_s is not None:
            return (time.monotonic() - start_s) / options.seconds
        return tally.total / options.requests

    async def worker(name: int) -> None:
        source = random.Random(options.seed * 1000 + name)
        for _ in numbers:
            if end_s is not None and time.monotonic() > end_s:
                return
            await _one(host, int(port), source, tally)
            is_warm = tally.total >= WARM_UP_REQUESTS or progress() > WARM_UP_SHARE
            if not before and is_warm:
                before.extend(map(_rss_mb, pids))

    async def report() -> None:
        while True:
            await asyncio.sleep(10)
            print(f"{tally.total} done, {tally.retried} retries, {list(map(_rss_mb, pids))} MB")

    telling = asyncio.create_task(report())
    await asyncio.gather(*(worker(name) for name in range(options.streams)))
    telling.cancel()
    names = ("front end", "engine")
    return {n: _rss_mb(p) - b for n, p, b in zip(names, pids, before, strict=True)}


async def _one(host: str, port: int, source: random.Random, tally: Tally) -> None:
    """One request, until it is answered."""
    max_tokens = source.randint(1, 8)
    is_chat, is_stream = source.random() < 0.3, source.random() < 0.5
    body: dict[str, object] = {"max_tokens": max_tokens, "ignore_eos": True, "stream": is_stream}
    words = ["once", "upon", "a", "time", "there", "was", "a", "small", "engine"]
    text = " ".join(source.choices(words, k=source.randint(1, 30)))
    if is_chat:
        body["messages"] = [{"role": "user", "content": text}]
    else:
        body |= {"prompt": text, "n": source.choice((1, 1, 1, 2))}
    leaves_after_s = source.expovariate(10) if source.random() < 0.1 else None
    path = "/v1/chat/completions" if is_chat else "/v1/completions"
    while True:
        work = _ask(host, port, path, json.dumps(body).encode())
        try:
            answer = await asyncio.wait_for(work, 120 if leaves_after_s is None else leaves_after_s)
        except TimeoutError:
            if leaves_after_s is None:
                tally.problems.append(f"no answer to {body}")
            else:
                tally.left += 1
            return
        except OSError as error:
            tally.problems.append(f"{error} for {body}")
            return
        status, content = answer
        if status == 503:
            tally.retried += 1
            await asyncio.sleep(source.uniform(0.05, 0.5))
            continue
        problem = _problem(status, content, is_stream, max_tokens * int(str(body.get("n", 1))))
        if problem is None:
            tally.finished += 1
        else:
            tally.problems.append(f"{problem}: {content[-300:]!r} for {body}")
        return


def _problem(status: int, content: bytes, is_stream: bool, num_tokens: int) -> str | None:
    if status != 200:
        return f"status {status}"
    if is_stream:
        if not content.rstrip().endswith(b"data: [DONE]"):
            return "a stream without its end"
        if b'"error"' in content:
            return "an error in a stream"
        ends = content.count(b'"finish_reason":"length"')
        return None if ends in (1, 2) else f"{ends} ends"
    counted = json.loads(content)["usage"]["completion_tokens"]
    return None if counted == num_tokens else f"{counted} tokens, not {num_tokens}"


async def _ask(host: str, port: int, path: str, body: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.read(-1)
    finally:
        writer.transport.abort()
    head_bytes, _, content = answer.partition(b"\r\n\r\n")
    if b"chunked" in head_bytes.lower():
        content = b"".join(_unchunk(content))
    return int(head_bytes.split()[1]), content


def _unchunk(data: bytes) -> list[bytes]:
    pieces = []
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        pieces.append(rest[:length])
        data = rest[length + 2 :]
    return pieces


def _rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no memory of process {pid}")


if __name__ == "__main__":
    sys.exit(main())
