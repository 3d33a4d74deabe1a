"""The engine on a CPU: scheduling, blocks, and a whole small workload."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_scheduler import steady_scheduler
from pytest_benchmark.fixture import BenchmarkFixture

from runtime.bench.make_model import MODEL_SHAPES, make_model
from runtime.bench.workload import WORKLOADS
from runtime.block_manager import BlockManager
from runtime.llm import LLM
from runtime.sampling_params import SamplingParams
from runtime.sequence import Request, Sequence

NUM_SEQS, BLOCK_SIZE, PROMPT_LEN = 256, 16, 1024
STEPS = 64
"""Whole blocks, so that each sample has as many allocations as the next."""


def bench_scheduler_step_at_256_sequences(benchmark: BenchmarkFixture) -> None:
    """64 steps of `schedule` and `finish_step`, decodes only."""
    scheduler = steady_scheduler(NUM_SEQS, 0, BLOCK_SIZE)
    tokens = [7] * NUM_SEQS

    def steps() -> None:
        for _ in range(STEPS):
            scheduler.finish_step(scheduler.schedule(), tokens)

    benchmark.pedantic(steps, rounds=25, warmup_rounds=1)


def _sequence(name: str) -> Sequence:
    prompt = tuple(range(PROMPT_LEN))
    request = Request(name, prompt, SamplingParams(max_tokens=16))
    return Sequence(request, (0, 0, 0), PROMPT_LEN + 16)


@pytest.mark.parametrize("cached", [False, True], ids=["prefix_missed", "prefix_hit"])
def bench_allocate_and_free(benchmark: BenchmarkFixture, cached: bool) -> None:
    """Blocks for a prompt of 1,024 tokens that nobody has seen, or that lies in the cache."""
    manager = BlockManager(BLOCK_SIZE, 4096, enable_prefix_caching=cached)
    first = _sequence("first")
    assert manager.allocate(first, None) == []
    manager.register(first, PROMPT_LEN)
    manager.free(first, None)

    def allocate(sequence: Sequence) -> None:
        manager.allocate(sequence, None)
        manager.free(sequence, None)

    benchmark.pedantic(
        allocate, setup=lambda: ((_sequence("next"),), {}), rounds=200, warmup_rounds=10
    )
    assert (manager.num_prefix_hits > 0) is cached


def bench_small_mixed_workload(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Six requests of the mixed workload through a model of two million parameters."""
    make_model("llama-2m-32k", tmp_path)
    work = WORKLOADS["mixed"](MODEL_SHAPES["llama-2m-32k"]["vocab_size"], 0).first(6)
    llm = LLM(
        tmp_path,
        kv_cache_bytes=1 << 26,
        max_model_len=512,
        enable_prefix_caching=False,
        skip_tokenizer=True,
    )
    prompts = [list(prompt) for prompt in work.prompts]
    wanted = [
        SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True)
        for count in work.output_lens
    ]
    outputs = benchmark.pedantic(
        llm.generate, (prompts, wanted), {"use_tqdm": False}, rounds=8, warmup_rounds=1
    )
    assert [len(o.outputs[0].token_ids) for o in outputs] == list(work.output_lens)
