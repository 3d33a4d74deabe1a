"""Times `Scheduler.schedule` and `finish_step` with many running decodes; prints microseconds.

    python ci/bench_scheduler.py --num-seqs 256

The median over repeats of the mean over a window of steps; the window spans whole blocks, so that
block allocation, hashing and registration are in it. Time is that of the thread, which other
processes do not lengthen by taking turns on the core; the best wall time of a window stands beside.
With `--ahead` a step is always in flight, as in asynchronous operation.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections import deque

from runtime.batch import ScheduledBatch
from runtime.sampling_params import SamplingParams
from runtime.scheduler import Scheduler
from runtime.scheduler_config import SchedulerConfig
from runtime.sequence import Request


def steady_scheduler(num_seqs: int, num_waiting: int, block_size: int) -> Scheduler:
    """A scheduler whose seats are all taken by sequences that decode."""
    prompt_len = 128
    config = SchedulerConfig(
        block_size=block_size,
        num_blocks=2 + num_seqs * (4096 // block_size),
        max_num_seqs=num_seqs,
        max_num_batched_tokens=max(8192, num_seqs),
        max_model_len=4096,
        max_queue_len=num_seqs + num_waiting,
    )
    scheduler = Scheduler(config)
    for number in range(num_seqs + num_waiting):
        # Prompt lengths differ, so that block boundaries are spread over the steps.
        prompt = tuple(range(number, number + prompt_len + number % block_size))
        scheduler.add_request(
            Request(f"r{number}", prompt, SamplingParams(max_tokens=None, ignore_eos=True))
        )
    decoding = 0
    while decoding < num_seqs:
        batch = scheduler.schedule()
        scheduler.finish_step(batch, [7] * len(batch.samples))
        decoding = batch.num_decodes
    return scheduler


def measure(
    num_seqs: int, num_waiting: int, block_size: int, repeats: int, *, ahead: bool
) -> dict[str, float]:
    """Median microseconds per call of `schedule` and `finish_step`."""
    scheduler = steady_scheduler(num_seqs, num_waiting, block_size)
    tokens = [7] * num_seqs
    launched: deque[ScheduledBatch] = deque()
    if ahead:
        launched.append(scheduler.schedule())
    schedule_us: list[float] = []
    finish_us: list[float] = []
    wall_us: list[float] = []
    window = max(64, block_size)
    gc.collect()
    gc.freeze()  # as a server does after start-up: what lives long is not scanned again
    for _ in range(repeats):
        spent_schedule = spent_finish = spent_wall = 0.0
        for _ in range(window):
            wall, started = time.perf_counter(), time.thread_time()
            launched.append(scheduler.schedule())
            planned, after = time.thread_time(), time.perf_counter()
            batch = launched.popleft()
            assert batch.num_decodes == num_seqs, "the scheduler is not in its steady state"
            begun = time.thread_time()
            scheduler.finish_step(batch, tokens)
            spent_finish += time.thread_time() - begun
            spent_schedule += planned - started
            spent_wall += after - wall
        schedule_us.append(spent_schedule / window * 1e6)
        finish_us.append(spent_finish / window * 1e6)
        wall_us.append(spent_wall / window * 1e6)
    gc.unfreeze()
    return {
        "num_seqs": num_seqs,
        "num_waiting": num_waiting,
        "block_size": block_size,
        "schedule_us": round(statistics.median(schedule_us), 1),
        "schedule_best_wall_us": round(min(wall_us), 1),
        "finish_us": round(statistics.median(finish_us), 1),
    }


def main() -> int:
    """Print one line per setting; exits 1 if `--limit-us` is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-seqs", type=int, default=256)
    parser.add_argument("--num-waiting", type=int, default=0, help="requests left in the queue")
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--ahead", action="store_true", help="keep one step in flight")
    parser.add_argument("--limit-us", type=float, help="fail if the median is above this")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(
        args.num_seqs, args.num_waiting, args.block_size, args.repeats, ahead=args.ahead
    )
    if args.json:
        print(json.dumps(found))
    else:
        print(
            f"{args.num_seqs} running decodes, {args.num_waiting} waiting, blocks of "
            f"{args.block_size}: schedule {found['schedule_us']} us "
            f"(best wall {found['schedule_best_wall_us']}), finish {found['finish_us']} us per step"
        )
    return int(args.limit_us is not None and found["schedule_us"] > args.limit_us)


if __name__ == "__main__":
    raise SystemExit(main())
