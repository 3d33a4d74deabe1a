"""Times the host's share of a decode step in all its parts; prints microseconds.

    python ci/bench_step.py --num-seqs 256

What the host does per step beside the model: `schedule`; `launch`, which fills the inputs, plans
the sampling and asks the device for both; `collect`, which reads the tokens back; `finish_step`.
There is no model, but what a GPU would do of `launch` (copies, argmax, draws) is in it on a CPU.
One step is always in flight. Eager steps have block tables on the host, replayed ones on the
device. The median over windows of the mean over a window; time is that of the thread.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections import deque
from collections.abc import Callable

import torch

from runtime.batch import ScheduledBatch
from runtime.graphs import Graph
from runtime.kv_cache import KVCache
from runtime.model_input import ModelInput
from runtime.model_runner import ModelRunner, StepInFlight
from runtime.sampler import Sampler
from runtime.sampling_params import SamplingParams
from runtime.scheduler import Scheduler
from runtime.scheduler_config import SchedulerConfig
from runtime.sequence import Request
from runtime.step_inputs import StepInputs
from runtime.stream import make_stream

_VOCAB_SIZE = 64
_PROMPT_LEN = 128
_WINDOW = 32

_SAMPLING = {
    "greedy": SamplingParams(temperature=0, max_tokens=None, ignore_eos=True),
    "seeded": SamplingParams(temperature=0.8, seed=1, max_tokens=None, ignore_eos=True),
    "top-p": SamplingParams(temperature=0.8, top_p=0.9, max_tokens=None, ignore_eos=True),
    "penalties": SamplingParams(
        temperature=0, repetition_penalty=1.1, max_tokens=None, ignore_eos=True
    ),
}


class NoModel:
    """Costs next to nothing."""

    def __init__(self, device: torch.device) -> None:
        self._logits = torch.randn(1, _VOCAB_SIZE, device=device)

    def forward(self, step: ModelInput, cache: KVCache) -> torch.Tensor:
        """One number per token."""
        return step.positions[:, None]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The same for all."""
        return self._logits.repeat(len(hidden), 1)


class NoGraphs:
    """Stands in for captured steps: a replay does nothing."""

    def capture(self, forward: Callable[[], torch.Tensor]) -> tuple[Graph, torch.Tensor]:
        """Keep the first result."""
        return self, forward()

    def replay(self) -> None:
        """Leave all as it is."""


class Stopwatch:
    """Thread time by name."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = {}
        self._last_s = time.thread_time()

    def start(self) -> None:
        """Time from now on."""
        self._last_s = time.thread_time()

    def lap(self, name: str) -> None:
        """Book what has passed since the last call."""
        now = time.thread_time()
        self.spent_s[name] = self.spent_s.get(name, 0.0) + now - self._last_s
        self._last_s = now


class Bench:
    """An engine's steps without a model, with a step always in flight."""

    def __init__(
        self, num_seqs: int, block_size: int, params: SamplingParams, *, with_tables: bool
    ) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        limits = SchedulerConfig(
            block_size=block_size,
            num_blocks=2 + num_seqs * (4096 // block_size),
            max_num_seqs=num_seqs,
            max_num_batched_tokens=max(8192, num_seqs),
            max_queue_len=num_seqs,
        )
        stream = make_stream(device)
        self.scheduler = Scheduler(limits)
        cache = KVCache(1, 2, 0, block_size, 1, 1, torch.float32, device)
        self.runner = ModelRunner(
            NoModel(device),
            cache,
            Sampler(0),
            StepInputs(limits, stream, with_tables=with_tables),
            graph_device=NoGraphs() if with_tables else None,
            capture_sizes=(num_seqs,),
        )
        self.launched: deque[tuple[ScheduledBatch, StepInFlight]] = deque()
        for number in range(num_seqs):
            # Prompt lengths differ, so that block boundaries are spread over the steps.
            prompt = tuple(range(number, number + _PROMPT_LEN + number % block_size))
            prompt = tuple(token % _VOCAB_SIZE for token in prompt)
            self.scheduler.add_request(Request(f"r{number}", prompt, params))
        watch = Stopwatch()
        while not self.launched or self.launched[-1][0].num_decodes < num_seqs:
            self.step(watch)

    def step(self, watch: Stopwatch) -> None:
        """Launch one step and take the one before."""
        watch.start()
        batch = self.scheduler.schedule()
        watch.lap("schedule")
        if not batch.is_empty:
            self.launched.append((batch, self.runner.launch(batch)))
        watch.lap("launch")
        if len(self.launched) == 2 or batch.is_empty:
            done, step = self.launched.popleft()
            output = step.collect()
            watch.lap("collect")
            self.scheduler.finish_step(done, output.sampled.token_ids)
            watch.lap("finish")


def measure(
    num_seqs: int, block_size: int, sampling: str, repeats: int, *, with_tables: bool
) -> dict[str, float]:
    """Median microseconds per step of each part."""
    bench = Bench(num_seqs, block_size, _SAMPLING[sampling], with_tables=with_tables)
    gc.collect()
    gc.freeze()  # as a server does after start-up: what lives long is not scanned again
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        watch = Stopwatch()
        for _ in range(_WINDOW):
            bench.step(watch)
        for name, spent_s in watch.spent_s.items():
            found.setdefault(name, []).append(spent_s / _WINDOW * 1e6)
    gc.unfreeze()
    assert len(bench.launched) == 1, "a step is in flight"
    assert bench.launched[0][0].num_decodes == num_seqs, "not all decode"
    return {name: round(statistics.median(values), 1) for name, values in found.items()}


def main() -> int:
    """Print one line per setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-seqs", type=int, default=256)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--sampling", choices=sorted(_SAMPLING), action="append")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for sampling in args.sampling or _SAMPLING:
        for with_tables in (False, True):
            parts = measure(
                args.num_seqs, args.block_size, sampling, args.repeats, with_tables=with_tables
            )
            kind = "replayed" if with_tables else "eager"
            rows.append({"sampling": sampling, "forward": kind, **parts})
    if args.json:
        print(json.dumps(rows))
        return 0
    print(f"{args.num_seqs} decodes, blocks of {args.block_size}, microseconds per step")
    for row in rows:
        parts = ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("sampling", "forward"))
        total = sum(v for v in row.values() if isinstance(v, float))
        print(f"{row['sampling']:<10} {row['forward']:<9} {parts}: {total:.0f} in all")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
