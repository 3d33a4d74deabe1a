"""What HTTP costs: the same requests offline and through the server, in turns.

    python ci/bench_http.py out/m125                     all 32 requests of "mixed", 5 rounds
    python ci/bench_http.py out/m125 --stream            every token as an event of its own
    python ci/bench_http.py out/m125 --requests 4 --rounds 1

All requests are sent at once, each on a connection of its own. Both sides have their processes
loaded before the first round, which is not counted, and an empty prefix cache in each round (the
server by a salt). It prints JSON; the exit code is 1 if the server's median wall time is more than
--limit times the engine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.bench.make_model import make_model
from runtime.bench.turns import Setup, Worker
from runtime.bench.workload import WORKLOADS, Workload
from runtime.config import EngineConfig
from runtime.engine_plan import plan_engine
from runtime.model_config import load_model_config
from runtime.threads import default_threads

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure; 0 if the limit holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="made with random weights if it is not there")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--limit", type=float, default=1.10)
    options = parser.parse_args()
    if not options.model.exists():
        make_model("llama-125m", options.model)
    vocab_size = load_model_config(options.model).vocab_size
    workload = WORKLOADS["mixed"](vocab_size, 0).first(options.requests)
    dtype = plan_engine(EngineConfig(options.model)).dtype_name
    setup = Setup(options.model, dtype, default_threads(), workload.max_len)
    offline: list[float] = []
    served: list[float] = []
    cpu: dict[str, list[float]] = {"offline": [], "front end": [], "engine": []}
    with Worker("engine", setup) as worker, _server(setup) as (port, pids):
        for number in range(options.rounds + 1):
            result = worker.run(workload, len(workload.prompts))
            before = {name: _cpu_s(pid) for name, pid in pids.items()}
            seconds = asyncio.run(_ask_all(port, workload, f"round {number}", options.stream))
            if number:  # the first lets both allocate
                offline.append(result["seconds"])
                served.append(seconds)
                cpu["offline"].append(result["cpu_seconds"])
                for name, pid in pids.items():
                    cpu[name].append(_cpu_s(pid) - before[name])
    ratio = statistics.median(served) / statistics.median(offline)
    report = {
        "requests": len(workload.prompts),
        "output_tokens": workload.num_output_tokens,
        "stream": options.stream,
        "dtype": dtype,
        "threads": setup.threads,
        "offline_s": [round(s, 3) for s in offline],
        "served_s": [round(s, 3) for s in served],
        "cpu_s": {name: round(statistics.median(s), 2) for name, s in cpu.items()},
        "cpu_ratio": round(_cpu_ratio(cpu), 4),
        "wall_ratio": round(ratio, 4),
    }
    print(json.dumps(report, indent=1))
    return 0 if ratio <= options.limit else 1


@contextmanager
def _server(setup: Setup) -> Iterator[tuple[int, dict[str, int]]]:
    """A server set up as the offline engine is; gives its port and its processes."""
    command = [
        sys.executable, "-m", "runtime", "serve", str(setup.folder), "--port", "0",
        "--dtype", setup.dtype, "--threads", str(setup.threads),
        "--max-model-len", str(setup.max_len), "--skip-tokenizer-init",
        "--long-prefill-token-threshold", "2048", "--kv-cache-gib", "1",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        port = None
        for line in process.stderr:
            print(line, end="", file=sys.stderr)
            found = re.match(r"ready +http://\S+:(\d+)", line)
            if found:
                port = int(found[1])
                break
        if port is None:
            raise SystemExit("the server did not start")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield port, {"front end": process.pid, "engine": int(children[0])}
    finally:
        process.terminate()
        process.communicate(timeout=60)


async def _ask_all(port: int, workload: Workload, salt: str, stream: bool) -> float:
    """Send every request at once; returns the seconds until the last answer's end."""
    fields = {"temperature": 0, "ignore_eos": True, "stream": stream, "cache_salt": salt}
    if stream:
        fields["stream_options"] = {"include_usage": True}
    bodies = [
        json.dumps({"prompt": prompt, "max_tokens": count, **fields}).encode()
        for prompt, count in zip(workload.prompts, workload.output_lens, strict=True)
    ]
    start_s = time.perf_counter()
    answers = await asyncio.gather(*(_ask(port, body) for body in bodies))
    seconds = time.perf_counter() - start_s
    for answer, count in zip(answers, workload.output_lens, strict=True):
        told = re.findall(rb'"completion_tokens": ?(\d+)', answer)
        if not told or int(told[-1]) != count:
            raise SystemExit(f"{count} tokens were asked for: {answer[-400:]!r}")
    return seconds


async def _ask(port: int, body: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    answer = await reader.read(-1)
    writer.close()
    return answer


def _cpu_ratio(cpu: Mapping[str, Sequence[float]]) -> float:
    """CPU time of the server's processes over the offline engine's: noise disturbs it least."""
    front, engine, offline = (statistics.median(cpu[n]) for n in ("front end", "engine", "offline"))
    return (front + engine) / offline


def _cpu_s(pid: int) -> float:
    """User and system time of a process's threads so far."""
    fields: list[Any] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


if __name__ == "__main__":
    sys.exit(main())
