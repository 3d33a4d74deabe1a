"""A small scheduler, and how the tests drive and read it."""

from __future__ import annotations

from runtime.batch import ScheduledBatch
from runtime.sampling_params import SamplingParams
from runtime.scheduler import Scheduler
from runtime.scheduler_config import SchedulerConfig
from runtime.sequence import Request


def make(**fields: object) -> Scheduler:
    defaults: dict[str, object] = {
        "block_size": 4,
        "num_blocks": 33,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 16,
        "max_model_len": 64,
        "expected_output_tokens": 1,
        "enable_prefix_caching": False,
    }
    return Scheduler(SchedulerConfig(**(defaults | fields)))  # type: ignore[arg-type]


def request(name: str, num_prompt_tokens: int, first: int = 1, **fields: object) -> Request:
    params = {
        key: fields.pop(key)
        for key in ("n", "max_tokens", "min_tokens", "ignore_eos", "stop_token_ids")
        if key in fields
    }
    return Request(
        name,
        tuple(range(first, first + num_prompt_tokens)),
        SamplingParams(**params),  # type: ignore[arg-type]
        **fields,  # type: ignore[arg-type]
    )


def run_step(scheduler: Scheduler, token_id: int = 9) -> ScheduledBatch:
    batch = scheduler.schedule()
    scheduler.finish_step(batch, [token_id] * len(batch.samples))
    scheduler.check_integrity()
    return batch


def work(batch: ScheduledBatch) -> list[tuple[str, int, int]]:
    return [
        (s.request.request_id, start, count)
        for s, start, count in zip(batch.sequences, batch.starts, batch.counts, strict=True)
    ]
